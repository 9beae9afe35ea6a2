"""Rewrites the quantization keys of one NNI 1.x or 2.x entry, which may differ by target."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from tersely.document.messages.wording import join_words, show
from tersely.document.path import Path
from tersely.json_value import Json
from tersely.text import did_you_mean

Refusal = tuple[Path, str, str | None]

QUANTIZATION_KEYS = ("quant_types", "quant_bits", "quant_dtype", "quant_scheme")

_TARGETS = {"weight": "weight", "bias": "bias", "input": "_input_", "output": "_output_"}
_SCHEME = re.compile(r"per_(?P<grain>tensor|channel)_(?P<scheme>symmetric|affine)\Z")
_SIGNS = ("int", "uint")
_DEFAULT_BITS = 8


def rewrite_quantization(new: dict[str, Json], entry: Mapping[str, Json]) -> list[Refusal]:
    """Add the quantization keys of an entry to its rewritten form.

    A type without ``quant_dtype`` becomes signed, as in NNI 3.0 and as this specification's own
    default is. ``per_channel_*`` reaches weights only, as in NNI.

    Args:
        new: the entry so far; receives the keys.
        entry: the entry as written.

    Returns:
        What has no meaning here: path inside the entry, message and hint.
    """
    refusals = list(_check(entry))
    given = {key: entry[key] for key in QUANTIZATION_KEYS if entry.get(key) is not None}
    if refusals or not given:
        return refusals
    if not any(key in given for key in ("quant_types", "quant_bits")) and not _is_legacy(given):
        new.update(given)
        return []
    types = _types_of(given)
    settings = {_TARGETS[kind]: _setting(given, kind) for kind in types}
    if "quant_types" in given:
        new["target_names"] = list(settings)
    values = list(settings.values()) or [_setting(given, None)]
    shared = {
        key: value
        for key, value in values[0].items()
        if all(other.get(key) == value for other in values)
    }
    new.update(shared)
    own = {
        target: {key: value for key, value in setting.items() if key not in shared}
        for target, setting in settings.items()
    }
    own = {target: setting for target, setting in own.items() if setting}
    if own:
        new["target_settings"] = own
    return []


def _types_of(given: Mapping[str, Json]) -> list[str]:
    if "quant_types" in given:
        return list(dict.fromkeys(given["quant_types"]))
    mappings = [value for value in given.values() if isinstance(value, dict)]
    if mappings:
        return list(dict.fromkeys(kind for value in mappings for kind in value))
    return []


def _is_legacy(given: Mapping[str, Json]) -> bool:
    values = [given.get("quant_dtype"), given.get("quant_scheme")]
    return any(
        isinstance(value, dict) or value in _SIGNS or _SCHEME.match(str(value)) for value in values
    )


def _setting(given: Mapping[str, Json], kind: str | None) -> dict[str, Json]:
    bits = _of(given.get("quant_bits"), kind)
    sign = _of(given.get("quant_dtype"), kind)
    scheme = _of(given.get("quant_scheme"), kind)
    setting: dict[str, Json] = {}
    if sign is not None and sign not in _SIGNS:
        setting["quant_dtype"] = sign  # a type of this specification already
    elif bits is not None or sign is not None:
        width = _DEFAULT_BITS if bits is None else int(bits)
        setting["quant_dtype"] = f"{sign or 'int'}{width}"
    match = _SCHEME.match(scheme) if scheme is not None else None
    if match:
        setting["quant_scheme"] = match["scheme"]
        if match["grain"] == "channel" and kind in ("weight", None):
            setting["granularity"] = "per_channel"
    elif scheme is not None:
        setting["quant_scheme"] = scheme
    return setting


def _of(value: Json, kind: str | None) -> Json:
    if isinstance(value, dict):
        return value.get(kind) if kind is not None else None
    return value


def _check(entry: Mapping[str, Json]) -> Iterator[Refusal]:
    types = entry.get("quant_types")
    if types is not None and not isinstance(types, list):
        yield ("quant_types",), f"found {show(types)}, expected a list of strings", None
    elif types is not None:
        for index, kind in enumerate(types):
            yield from _check_kind(kind, ("quant_types", index))
    for key, check in (
        ("quant_bits", _check_bits),
        ("quant_dtype", _check_sign),
        ("quant_scheme", _check_scheme),
    ):
        value = entry.get(key)
        if isinstance(value, dict):
            for kind, item in value.items():
                yield from _check_kind(kind, (key, kind))
                yield from check(item, (key, kind))
        elif value is not None:
            yield from check(value, (key,))


def _check_kind(kind: Json, path: Path) -> Iterator[Refusal]:
    if not isinstance(kind, str) or kind not in _TARGETS:
        hint = did_you_mean(kind, _TARGETS) if isinstance(kind, str) else None
        yield path, f"found {show(kind)}, expected {join_words(list(_TARGETS))}", hint


def _check_bits(value: Json, path: Path) -> Iterator[Refusal]:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or value not in range(1, 17):
        message = f"found {show(value)}, expected an integer from 1 to 16"
        hint = "32 bits are not quantized: leave the target out" if value == 32 else None  # noqa: PLR2004
        yield path, message, hint


def _check_sign(value: Json, path: Path) -> Iterator[Refusal]:
    if not isinstance(value, str):
        yield path, f"found {show(value)}, expected int or uint", None


def _check_scheme(value: Json, path: Path) -> Iterator[Refusal]:
    if not isinstance(value, str):
        expected = "per_tensor_affine, per_tensor_symmetric, per_channel_affine or "
        yield path, f"found {show(value)}, expected {expected}per_channel_symmetric", None
