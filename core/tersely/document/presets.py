"""Presets: quantization stages by name, for what runtimes compute with (rule Q6)."""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Iterator, Mapping

from tersely.document.entries import EXCLUDES, Place, stages_of
from tersely.document.reading.positions import Finding
from tersely.document.schemas.schema import Kind
from tersely.document.schemas.spec import spec_directory
from tersely.errors import ConfigError, Problem
from tersely.json_value import Json
from tersely.text import did_you_mean

PRESET = "preset"
RUNTIME = "for"
_ONLY_WITH_PRESET = (RUNTIME, *EXCLUDES)


def preset(name: str, runtime: str | None = None) -> dict[str, Json]:
    """Return the quantization stage that a preset stands for.

    Args:
        name: ``w8a8``, ``w8a8_dynamic``, ``w4a16``, ``w4a8_dynamic`` or ``fp8``.
        runtime: where the result is to run: ``onnxruntime``, ``openvino``, ``vllm`` or
            ``executorch``; None for the general form.

    Returns:
        ``algorithm`` and ``config_list``, the caller's to change.

    Raises:
        ConfigError: there is no such preset, or none for this runtime.
    """
    problem = _misfit(name, runtime)
    if problem is not None:
        raise ConfigError([Problem("", *problem)])
    found = _presets()[name]
    entries = found["runtimes"].get(runtime, {}).get("config_list", found["config_list"])
    return {"algorithm": found["algorithm"], "config_list": copy.deepcopy(entries)}


def preset_entries(stage: Mapping[str, Json]) -> list[dict[str, Json]]:
    """Return the entries that come before a stage's own, with what the stage excludes.

    Args:
        stage: a checked stage.
    """
    if PRESET not in stage:
        return []
    excluded = {key: stage[key] for key in EXCLUDES if key in stage}
    entries: list[dict[str, Json]] = preset(stage[PRESET], stage.get(RUNTIME))["config_list"]
    return [{**entry, **excluded} for entry in entries]


def preset_note(stage: Mapping[str, Json]) -> str:
    """Return in one sentence what a stage's preset is and what its runtime changes.

    Args:
        stage: a checked stage that names a preset.
    """
    name, runtime = stage[PRESET], stage.get(RUNTIME)
    found = _presets()[name]
    said = f"preset {name}: {found['summary']}"
    note = found["runtimes"].get(runtime, {}).get("note")
    return f"{said}; for {runtime}, {note}" if note else said


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
    """Yield presets that do not exist for a runtime, and keys that only stand beside a preset.

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
                        f"{key!r} belongs to a 'preset', and the stage has none",
                        "write it in the entries of config_list"
                        if key in EXCLUDES
                        else "name one, such as preset: w8a8",
                        part="key",
                    )
            continue
        name, runtime = _text(stage.data[PRESET]), stage.data.get(RUNTIME)
        if name in _presets() and isinstance(runtime, str) and runtime in _runtimes():
            problem = _misfit(name, runtime)
            if problem is not None:
                yield Finding((*stage.path, RUNTIME), *problem)


def _with_preset(data: Json, kind: Kind) -> Iterator[Place]:
    for stage in stages_of(data, kind):
        if stage.method == "quantization" and PRESET in stage.data:
            yield stage


def _text(value: Json) -> str:
    return value if isinstance(value, str) else ""


def _misfit(name: str, runtime: str | None) -> tuple[str, str | None] | None:
    presets = _presets()
    if name not in presets:
        return f"there is no preset {name!r}", did_you_mean(name, presets) or _known(presets)
    if runtime is None or runtime in presets[name]["runtimes"]:
        return None
    if runtime not in _runtimes():
        known = _runtimes()
        return f"there is no runtime {runtime!r}", did_you_mean(runtime, known) or _known(known)
    others = [other for other in presets if runtime in presets[other]["runtimes"]]
    return f"{runtime} has no integer kernels for preset {name!r}", (
        f"{_known(others)} for {runtime}; {name} is for {', '.join(presets[name]['runtimes'])}"
    )


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
