"""Plans as JSON data and back."""

from __future__ import annotations

import base64
import json
import math
import zlib
from collections.abc import Mapping, Sequence

import attrs
import numpy as np
import torch
from torch import Tensor

from tersely.arithmetic.blocks import Blocks, resolve_size
from tersely.contracts.settings import Setting
from tersely.contracts.target_plan import Origin, TargetPlan
from tersely.document.load import load_recipe
from tersely.document.recipe import Recipe
from tersely.errors import PlanError
from tersely.json_value import Json
from tersely.planning.data import PlanData
from tersely.planning.encoded import check_encoded, check_setting
from tersely.planning.remarks import Shadowed, Skipped, Unmatched
from tersely.planning.stages.descriptors import descriptor_of
from tersely.planning.stages.shadows import Shadows
from tersely.planning.targets.rows import setting_of

FORMAT = 1


def encode_plan(plan: PlanData) -> dict[str, Json]:
    """Return a plan as JSON data.

    Args:
        plan: any plan.
    """
    return {
        "format": FORMAT,
        "recipe": dict(plan.recipe.document),
        "selected": list(plan.selected),
        "targets": [_encode_target(target) for target in plan.targets],
        "unmatched": [_plain(attrs.asdict(one)) for one in plan.unmatched],
        "shadowed": [_plain(attrs.asdict(one)) for one in plan.shadowed],
        "skipped": [_plain(attrs.asdict(one)) for one in plan.skipped],
        "hints": list(plan.hints),
    }


def decode_plan(data: Mapping[str, Json]) -> PlanData:
    """Read a plan back from its JSON data.

    Args:
        data: what `encode_plan` returned.

    Raises:
        PlanError: the data is not a plan of this version.
        ConfigError: its recipe is not valid with the plugins that are installed now.
    """
    found = data.get("format") if isinstance(data, Mapping) else type(data).__name__  # type: ignore[redundant-expr]  # a file may hold anything
    if found != FORMAT:
        raise PlanError(
            f"expected a plan of format {FORMAT}, found {found!r}; plan again from the recipe"
        )
    recipe = load_recipe(data.get("recipe", {}))
    try:
        check_encoded(data, recipe)
        settings = _Settings(recipe)
        return PlanData(
            recipe=recipe,
            selected=tuple(data["selected"]),
            targets=tuple(_decode_target(target, settings) for target in data["targets"]),
            unmatched=tuple(
                Unmatched(one["path"], one["value"], tuple(one["near"]), one["message"])
                for one in data["unmatched"]
            ),
            shadowed=Shadows(
                Shadowed(
                    one["module"],
                    one["target"],
                    one["method"],
                    Origin(**one["winner"]),
                    Origin(**one["loser"]),
                )
                for one in data["shadowed"]
            ),
            skipped=tuple(Skipped(**one) for one in data["skipped"]),
            hints=tuple(data["hints"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise PlanError(f"the plan's data is damaged: {error}; plan again") from error


def _encode_target(target: TargetPlan) -> dict[str, Json]:
    data = attrs.asdict(target, recurse=False)
    data["setting"] = target.setting.to_dict()
    data["origin"] = attrs.asdict(target.origin)
    data["blocks"] = None if target.blocks is None else _encode_blocks(target.blocks)
    return dict(_plain(data))


def _encode_blocks(blocks: Blocks) -> dict[str, Json]:
    if blocks.index is None:
        return dict(attrs.asdict(blocks))
    return {"size": None, "scope": None, "keep": None, "index": _packed(blocks.index)}


def _decode_blocks(data: Mapping[str, Json], shape: Json) -> Blocks:
    if data.get("index") is None:
        for size in (data["size"], data["scope"]):
            if size is not None and shape:
                resolve_size(size, shape)
        return Blocks(data["size"], data["scope"], data["keep"])
    return Blocks(index=_unpacked(data["index"], shape or ()))


def _packed(numbers: Tensor) -> str:
    # Text: base64 of the zlib stream of 32-bit little-endian integers.
    return base64.b64encode(zlib.compress(numbers.numpy().astype("<i4").tobytes())).decode()


def _unpacked(text: str, shape: Sequence[int]) -> Tensor:
    size = 4 * math.prod(shape)
    try:
        unpacked = zlib.decompressobj()
        data = unpacked.decompress(base64.b64decode(text, validate=True), size + 1)
    except (ValueError, zlib.error) as error:
        raise ValueError(f"the index of blocks is damaged: {error}") from None
    if len(data) != size:
        raise ValueError(f"the index of blocks is not one of the shape {list(shape)}")
    return torch.from_numpy(np.frombuffer(data, "<i4").astype(np.int32)).reshape(tuple(shape))


@attrs.frozen(eq=False)
class _Settings:
    # Equal targets share one object, as they do in a plan that was just made.
    recipe: Recipe
    found: dict[tuple[int, str], Setting] = attrs.field(factory=dict)

    def of(self, data: Mapping[str, Json]) -> Setting:
        key = (data["stage"], json.dumps(data["setting"]))
        if key not in self.found:
            check_setting(data["method"], data["setting"])
            info = descriptor_of(self.recipe.stages[data["stage"]])
            self.found[key] = setting_of(data["method"], data["setting"], info)
        return self.found[key]


def _decode_target(data: Mapping[str, Json], settings: _Settings) -> TargetPlan:
    blocks = data["blocks"]
    return TargetPlan(
        **{
            **data,
            "setting": settings.of(data),
            "origin": Origin(**data["origin"]),
            "shared_with": tuple(data["shared_with"]),
            "shape": None if data["shape"] is None else tuple(data["shape"]),
            "blocks": None if blocks is None else _decode_blocks(blocks, data["shape"]),
        }
    )


def _plain(value: Json) -> Json:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value
