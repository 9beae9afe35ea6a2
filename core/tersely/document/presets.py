"""Presets: quantization stages by name, for what runtimes compute with (rule Q6)."""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Iterator, Mapping

from tersely.document.entries import EXCLUDES, Place, stages_of
from tersely.document.messages.synonyms import advice_for_preset
from tersely.document.reading.positions import Finding
from tersely.document.schemas.schema import Kind
from tersely.document.schemas.spec import spec_directory
from tersely.errors import ConfigError, Problem
from tersely.json_value import Json
from tersely.text import did_you_mean

PRESET = "preset"
RUNTIME = "for"
REDUCED = "reduce_range"
_ONLY_WITH_PRESET = (RUNTIME, REDUCED, *EXCLUDES)
_INSTEAD = {
    RUNTIME: "name one, such as preset: w8a8",
    REDUCED: "write quant_dtype: int7 for the weights in the entries of config_list",
}
_REDUCTION = "weights that are multiplied by 8-bit inputs have 7 bits (reduce_range)"


def preset(name: str, runtime: str | None = None, *, reduce_range: bool = False) -> dict[str, Json]:
    """Return the quantization stage that a preset expands to.

    A stage that names the preset also folds batch norms where they can be found (rule Q6.7). One
    that spells it out does so with ``fuse_names: auto``.

    Args:
        name: ``w8a8``, ``w8a8_dynamic``, ``w4a16``, ``w4a8_dynamic`` or ``fp8``.
        runtime: where the result is to run: ``onnxruntime``, ``openvino``, ``vllm`` or
            ``executorch``; None for the general form.
        reduce_range: whether weights that are multiplied by 8-bit inputs have 7 bits, for
            processors that add products of 8 bits in 16.

    Returns:
        ``algorithm`` and ``config_list``, the caller's to change.

    Raises:
        ConfigError: there is no such preset, or none for this runtime, or it has no part that a
            reduced range is for.
    """
    problem = _misfit(name, runtime) or (_irreducible(name, runtime) if reduce_range else None)
    if problem is not None:
        raise ConfigError([Problem("", *problem)])
    found = _presets()[name]
    entries = copy.deepcopy(
        found["runtimes"].get(runtime, {}).get("config_list", found["config_list"])
    )
    if reduce_range:
        entries = [*_reduced(entries)]
    return {"algorithm": found["algorithm"], "config_list": entries}


def preset_entries(stage: Mapping[str, Json]) -> list[dict[str, Json]]:
    """Return the entries that come before a stage's own, with what the stage excludes.

    Args:
        stage: a checked stage that names a preset.
    """
    excludes = [key for key in EXCLUDES if key in stage]
    entries = _entries_of(stage)
    return [
        {**entry, **{key: [*entry.get(key, ()), *stage[key]] for key in excludes}}
        for entry in entries
    ]


def excludes_of_preset(stage: Mapping[str, Json]) -> tuple[str, ...]:
    """Return what a stage's preset excludes by itself.

    Args:
        stage: a checked stage that names a preset.
    """
    return tuple(
        {
            name: None
            for entry in _entries_of(stage)
            for key in EXCLUDES
            for name in entry.get(key, ())
        }
    )


def _entries_of(stage: Mapping[str, Json]) -> list[dict[str, Json]]:
    entries: list[dict[str, Json]] = preset(
        stage[PRESET], stage.get(RUNTIME), reduce_range=stage.get(REDUCED, False)
    )["config_list"]
    return entries


def preset_note(stage: Mapping[str, Json]) -> str:
    """Return in one sentence what a stage's preset is and what its runtime changes.

    Args:
        stage: a checked stage that names a preset.
    """
    name, runtime = stage[PRESET], stage.get(RUNTIME)
    found = _presets()[name]
    said = f"preset {name}: {found['summary']}"
    note = found["runtimes"].get(runtime, {}).get("note")
    said = f"{said}; for {runtime}, {note}" if note else said
    return f"{said}; {_REDUCTION}" if stage.get(REDUCED) else said


def fill_presets(data: Json, kind: Kind) -> None:
    """Write the algorithm of its preset into every stage that names none, in place.

    Args:
        data: plain JSON data without what counts as absent; need not fit the schema.
        kind: what the document is.
    """
    for stage in _with_preset(data, kind):
        found = _presets().get(_text(stage.data[PRESET]))
        if found is not None:
            stage.data.setdefault("algorithm", found["algorithm"])


def check_presets(data: Json, kind: Kind) -> Iterator[Finding]:
    """Yield presets that do not exist for a runtime, and keys that are only legal with a preset.

    Args:
        data: plain JSON data without what counts as absent; need not fit the schema.
        kind: what the document is.
    """
    for stage in stages_of(data, kind):
        if stage.method != "quantization":
            continue
        if PRESET not in stage.data:
            for key in _ONLY_WITH_PRESET:
                if key in stage.data:
                    yield Finding(
                        (*stage.path, key),
                        f"{key!r} belongs to a 'preset', but the stage has none",
                        _INSTEAD.get(key, "write it in the entries of config_list"),
                        part="key",
                    )
            continue
        name, runtime = _text(stage.data[PRESET]), stage.data.get(RUNTIME)
        if name not in _presets() or runtime not in (None, *_runtimes()):
            continue  # the schema says so
        problem = _misfit(name, runtime)
        if problem is not None:
            yield Finding((*stage.path, RUNTIME), *problem)
        elif stage.data.get(REDUCED) is True:
            problem = _irreducible(name, runtime)
            if problem is not None:
                yield Finding((*stage.path, REDUCED), *problem, part="key")


def _with_preset(data: Json, kind: Kind) -> Iterator[Place]:
    for stage in stages_of(data, kind):
        if stage.method == "quantization" and PRESET in stage.data:
            yield stage


def _text(value: Json) -> str:
    return value if isinstance(value, str) else ""


def _misfit(name: str, runtime: str | None) -> tuple[str, str | None] | None:
    presets = _presets()
    if name not in presets:
        return f"there is no preset {name!r}", (
            advice_for_preset(name) or did_you_mean(name, presets) or _known(presets)
        )
    if runtime is None or runtime in presets[name]["runtimes"]:
        return None
    if runtime not in _runtimes():
        known = _runtimes()
        return f"there is no runtime {runtime!r}", did_you_mean(runtime, known) or _known(known)
    others = [other for other in presets if runtime in presets[other]["runtimes"]]
    return f"{runtime} has no integer kernels for preset {name!r}", (
        f"{_known(others)} for {runtime}; {name} is for {', '.join(presets[name]['runtimes'])}"
    )


def _irreducible(name: str, runtime: str | None) -> tuple[str, str] | None:
    runtimes = _presets()[name].get("reduce_range_for", [])
    if runtimes and (runtime is None or runtime in runtimes):
        return None
    found = f"preset {name!r}" if runtime is None else f"preset {name!r} for {runtime}"
    able = (
        f"{other} for {' or '.join(one['reduce_range_for'])}"
        for other, one in _presets().items()
        if "reduce_range_for" in one
    )
    return f"{found} has no reduced range", f"leave it out; there is one in {', '.join(able)}"


def _reduced(entries: list[dict[str, Json]]) -> Iterator[dict[str, Json]]:
    multiplied = [
        name for one in entries if "_input_" in one["target_names"] for name in one["op_types"]
    ]
    for entry in entries:
        if entry["target_names"] != ["weight"] or entry["quant_dtype"] != "int8":
            yield entry
            continue
        for dtype, is_multiplied in (("int7", True), ("int8", False)):
            names = [one for one in entry["op_types"] if (one in multiplied) == is_multiplied]
            if names:
                yield {**entry, "op_types": names, "quant_dtype": dtype}


def _known(names: Mapping[str, Json] | list[str]) -> str:
    return f"there are {', '.join(names)}"


def _runtimes() -> list[str]:
    found = (runtime for one in _presets().values() for runtime in one["runtimes"])
    return list(dict.fromkeys(found))


@functools.cache
def _presets() -> dict[str, dict[str, Json]]:
    text = (spec_directory() / "presets.json").read_text(encoding="utf-8")
    found: dict[str, dict[str, Json]] = json.loads(text)
    return found
