"""Overflow of the 16-bit sums in which x86 processors without VNNI add 8-bit products."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Final

import torch

import tersely
from tersely.contracts import IntegerWeight
from tersely_export.names import split_name

SETTING: Final = "session.x64quantprecision"
"""The setting of onnxruntime's sessions that adds such products in 32 bits."""

_LARGEST_SUM: Final = 2**15 - 1
_SUMS_IN_32_BITS = ("avx512_vnni", "avx_vnni", "avx_vnni_int8", "avx10_1", "amx_int8")
_SHIFT, _LARGEST_UNSIGNED = 128, 255
_SHOWN = 3


def capabilities() -> Mapping[str, object]:
    """Return the capabilities of this machine's processor, by PyTorch's names.

    Returns:
        An empty mapping if this version of PyTorch does not report them.
    """
    found: Mapping[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return found


def adds_in_16_bits() -> bool:
    """Tell whether this processor adds pairs of 8-bit products in 16 bits, which saturate."""
    processor = capabilities()
    return processor.get("architecture") == "x86_64" and not any(
        processor.get(name) for name in _SUMS_IN_32_BITS
    )


def overflowing(source: tersely.ExportSource) -> Sequence[str]:
    """Return the weights whose products with inputs may overflow on this processor.

    Without VNNI, x86 multiplies unsigned 8-bit inputs by signed 8-bit weights and adds pairs of
    neighbouring products in 16 bits, which saturate.

    Args:
        source: the session.

    Returns:
        Their full names; none on a processor that adds in 32 bits.
    """
    if not adds_in_16_bits():
        return ()
    largest = _largest_inputs(source)
    return tuple(
        name
        for name, weight in source.integers.items()
        # Biases have one dimension, and are added to sums of 32 bits.
        if weight.values.ndim > 1
        and _may_overflow(
            max((largest.get(one, 0) for one in _modules(source, name)), default=0), weight
        )
    )


def _largest_inputs(source: tersely.ExportSource) -> dict[str, int]:
    """Return for each module the largest integer of its 8-bit inputs in products."""
    found: dict[str, int] = {}
    for one in source.activations:
        if not one.is_input:
            continue
        # Signed inputs are written, or read, as unsigned ones that are 128 larger.
        largest = one.quant_max + (_SHIFT if one.quant_min < 0 else 0)
        if largest <= _LARGEST_UNSIGNED:  # wider inputs are multiplied as floats
            found[one.module] = max(largest, found.get(one.module, 0))
    return found


def _modules(source: tersely.ExportSource, name: str) -> frozenset[str]:
    """Return the modules of a weight, which may be tied."""
    further = (split_name(one)[0] for one in source.targets[name].shared_with)
    return frozenset([source.targets[name].module, *further])


def _may_overflow(largest: int, weight: IntegerWeight) -> bool:
    least, most = weight.qparams.quant_min, weight.qparams.quant_max
    if least >= 0 or most >= _SHIFT:  # such weights have other kernels
        return False
    return 2 * largest * most > _LARGEST_SUM or 2 * largest * -least > _LARGEST_SUM + 1


def warn_of_overflow(source: tersely.ExportSource) -> None:
    """Warn of weights whose products with inputs may overflow on this processor.

    Args:
        source: the session.
    """
    found = overflowing(source)
    if found:
        more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        warnings.warn(
            "this processor has no VNNI, and sums of products with these weights may overflow on "
            f"it: {', '.join(found[:_SHOWN])}{more}; if the file is to run on such processors, "
            "quantize them to int7, as reduce_range does in a preset",
            stacklevel=2,
        )


def cause(source: tersely.ExportSource, module: str | None = None) -> str:
    """Return a possible overflow as the cause of differing outputs.

    Args:
        source: the session.
        module: the full name of the module that differs, or None for any.

    Returns:
        The cause and what to do, to be appended to an error; empty if nothing can overflow.
    """
    found = overflowing(source)
    if not any(module is None or module in _modules(source, one) for one in found):
        return ""
    return (
        "; this processor has no VNNI and adds products in 16 bits, which overflow: quantize the "
        "weights to int7, as reduce_range does in a preset; for a file that runs on other "
        f"processors, or in sessions that set {SETTING}, export with the option exact_sums"
    )
