"""What the JSON data of a plan has to hold, key by key, before anything is built of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import attrs

from tersely.contracts.kinds import KINDS, METHODS
from tersely.document.path import spell_path
from tersely.document.recipe import Recipe
from tersely.document.schemas.schema import composed_schema, offline_validator
from tersely.json_value import Json

_LONGEST = 200


@attrs.frozen
class _Form:
    fits: Callable[[Json], bool]
    words: str
    is_optional: bool = False


def _is_whole(value: Json) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _are(fits: Callable[[Json], bool]) -> Callable[[Json], bool]:
    return lambda value: isinstance(value, (list, tuple)) and all(map(fits, value))


def _or_none(fits: Callable[[Json], bool]) -> Callable[[Json], bool]:
    return lambda value: value is None or fits(value)


def _is_text(value: Json) -> bool:
    return isinstance(value, str)


def _is_mapping(value: Json) -> bool:
    return isinstance(value, Mapping)


def _is_length(value: Json) -> bool:
    return _is_whole(value) and value >= 0


def _is_size(value: Json) -> bool:
    return _is_whole(value) and (value > 0 or value == -1)


_TEXT = _Form(_is_text, "a string")
_TEXTS = _Form(_are(_is_text), "a list of strings")
_MAPPING = _Form(_is_mapping, "a mapping")
_MAPPINGS = _Form(_are(_is_mapping), "a list of mappings")
_LENGTH = _Form(_is_length, "an integer of at least 0")

_Forms: TypeAlias = Mapping[str, _Form]

_PLAN: _Forms = {
    "selected": _TEXTS,
    "targets": _MAPPINGS,
    "unmatched": _MAPPINGS,
    "shadowed": _MAPPINGS,
    "skipped": _MAPPINGS,
    "hints": _TEXTS,
}
_ORIGIN: _Forms = {
    "path": _TEXT,
    "selector": _TEXT,
    "line": _Form(_or_none(_is_whole), "an integer or null"),
    "is_preset": _Form(lambda value: isinstance(value, bool), "true or false", is_optional=True),
}
_UNMATCHED: _Forms = {"path": _TEXT, "value": _TEXT, "near": _TEXTS, "message": _TEXT}
_SHADOWED: _Forms = {
    "module": _TEXT,
    "target": _TEXT,
    "method": _Form(METHODS.__contains__, f"one of {', '.join(METHODS)}"),
    "winner": _MAPPING,
    "loser": _MAPPING,
}
_SKIPPED: _Forms = {"module": _TEXT, "target": _TEXT, "reason": _TEXT}
_BLOCKS: _Forms = {
    "size": _Form(_or_none(_are(_is_size)), "a list of positive integers and -1, or null"),
    "scope": _Form(_or_none(_are(_is_size)), "a list of positive integers and -1, or null"),
    "keep": _Form(_or_none(_is_length), "an integer of at least 0, or null"),
    "index": _Form(_or_none(_is_text), "a text, or null", is_optional=True),
}
_TARGET: _Forms = {
    "module": _TEXT,
    "target": _TEXT,
    "kind": _Form(KINDS.__contains__, f"one of {', '.join(KINDS)}"),
    "method": _SHADOWED["method"],
    "algorithm": _TEXT,
    "setting": _MAPPING,
    "origin": _MAPPING,
    "shared_with": _TEXTS,
    "stage": _LENGTH,
    "shape": _Form(_or_none(_are(_is_length)), "a list of lengths, or null"),
    "blocks": _Form(_or_none(_is_mapping), "a mapping or null"),
    "module_type": _TEXT,
    "output_dim": _Form(_is_whole, "an integer"),
    "input_dim": _Form(_is_whole, "an integer"),
    "channel_dim": _Form(_is_whole, "an integer"),
    "groups": _Form(lambda value: _is_whole(value) and value >= 1, "an integer of at least 1"),
    "has_experts": _Form(lambda value: isinstance(value, bool), "true or false"),
    "expert": _Form(lambda value: value is None, "null", is_optional=True),
}

_IDENTITY = ("stage", "module", "target")


def check_encoded(data: Mapping[str, Json], recipe: Recipe) -> None:
    """Check that a plan's data has every key, each with a value of the right form.

    Args:
        data: what a file holds of a plan.
        recipe: the plan's recipe.

    Raises:
        ValueError: a key is missing, unknown or holds something else; names its path.
    """
    _check(data, _PLAN, (), is_closed=False)
    for kind, forms in (("unmatched", _UNMATCHED), ("shadowed", _SHADOWED), ("skipped", _SKIPPED)):
        for index, one in enumerate(data[kind]):
            _check(one, forms, (kind, index))
            for key in ("winner", "loser") if kind == "shadowed" else ():
                _check(one[key], _ORIGIN, (kind, index, key))
    places: dict[tuple[Json, ...], int] = {}
    for index, target in enumerate(data["targets"]):
        path = ("targets", index)
        _check(target, _TARGET, path)
        _check(target["origin"], _ORIGIN, (*path, "origin"))
        if target["blocks"] is not None:
            _check(target["blocks"], _BLOCKS, (*path, "blocks"))
        _check_stage(target, recipe, path)
        first = places.setdefault(tuple(target[key] for key in _IDENTITY), index)
        if first != index:
            raise ValueError(f"{spell_path(path)} is the same target as targets[{first}]")


def check_setting(method: str, setting: Mapping[str, Json]) -> None:
    """Check that the resolved keys of a target are what a document may say of one.

    Args:
        method: pruning, quantization or distillation.
        setting: the keys; null ones are ignored.

    Raises:
        ValueError: a key is unknown or its value is not one that a document may have.
    """
    definitions = composed_schema(method)["$defs"]  # type: ignore[arg-type]  # checked before
    schema = {"$ref": f"#/$defs/{method}_target", "$defs": definitions}
    given = {key: value for key, value in setting.items() if value is not None}
    for error in offline_validator(schema).iter_errors(given):
        where = spell_path(("setting", *error.absolute_path))
        raise ValueError(f"{where}: {_short(error.message)}")


def _check_stage(target: Mapping[str, Json], recipe: Recipe, path: Sequence[str | int]) -> None:
    stages = recipe.stages
    if target["stage"] >= len(stages):
        raise ValueError(
            f"{spell_path((*path, 'stage'))} is {target['stage']}, and the recipe has "
            f"{len(stages)} stages"
        )
    stage = stages[target["stage"]]
    if target["method"] != stage.method:
        raise ValueError(
            f"{spell_path((*path, 'method'))} is {target['method']!r}, and its stage, "
            f"{stage.path}, is one of {stage.method}"
        )


def _check(
    data: Mapping[str, Json], forms: _Forms, path: Sequence[str | int], *, is_closed: bool = True
) -> None:
    for key, form in forms.items():
        if key not in data:
            if not form.is_optional:
                raise ValueError(f"{spell_path((*path, key))} is missing")
        elif not form.fits(data[key]):
            found = _short(repr(data[key]))
            raise ValueError(f"{spell_path((*path, key))} is {found}, expected {form.words}")
    unknown = data.keys() - forms.keys() if is_closed else ()
    if unknown:
        raise ValueError(f"{spell_path((*path, min(map(str, unknown))))} is not a key of a plan")


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
