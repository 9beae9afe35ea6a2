"""Sums of 16 bits, in which x86 processors without VNNI add products of 8 bits."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Final

import torch

import tersely

SETTING: Final = "session.x64quantprecision"
"""The setting of a session of onnxruntime that adds such products in 32 bits."""

_LARGEST_SUM: Final = 2**15 - 1
_SUMS_IN_32_BITS = ("avx512_vnni", "avx_vnni", "avx_vnni_int8", "avx10_1", "amx_int8")
_SHOWN = 3


def capabilities() -> Mapping[str, object]:
    """Return what this machine's processor has, by the names that PyTorch gives it.

    Returns:
        Nothing where this version of PyTorch does not tell.
    """
    found: Mapping[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return found


def adds_in_16_bits() -> bool:
    """Return whether this processor adds pairs of 8 bit products in 16 bits, which saturate."""
    processor = capabilities()
    return processor.get("architecture") == "x86_64" and not any(
        processor.get(name) for name in _SUMS_IN_32_BITS
    )


def overflowing(source: tersely.ExportSource) -> Sequence[str]:
    """Return the weights whose products with inputs may not fit the sums of this processor.

    Without VNNI, x86 multiplies unsigned 8 bit inputs by signed 8 bit weights and adds each two
    neighbouring products in 16 bits, which saturate.

    Args:
        source: the session.

    Returns:
        Their full names; none on a processor that adds in 32 bits.
    """
    if not adds_in_16_bits():
        return ()
    levels = {
        one.module: one.quant_max - one.quant_min + 1 for one in source.activations if one.is_input
    }
    return tuple(
        name
        for name, weight in source.integers.items()
        if weight.qparams.quant_min < 0
        and 2 * levels.get(source.targets[name].module, 0) * weight.qparams.quant_max > _LARGEST_SUM
    )


def warn_of_overflow(source: tersely.ExportSource) -> None:
    """Warn of weights whose products with inputs do not fit the sums of this processor.

    Args:
        source: the session.
    """
    found = overflowing(source)
    if found:
        more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        warnings.warn(
            f"this processor has no VNNI, and sums of products with these weights may overflow on "
            f"it: {', '.join(found[:_SHOWN])}{more}; if the file is to run on such processors, "
            f"quantize them to int7, as reduce_range does in a preset",
            stacklevel=2,
        )


def cause(source: tersely.ExportSource, module: str | None = None) -> str:
    """Return why onnxruntime computes something else here, where sums may have overflowed.

    Args:
        source: the session.
        module: full name of the module that differs, or None for any.

    Returns:
        The cause and what to do, to be added to an error; empty where nothing may overflow.
    """
    if not any(module in (None, source.targets[one].module) for one in overflowing(source)):
        return ""
    return (
        f"; this processor has no VNNI and adds products in 16 bits, which overflow: quantize the "
        f"weights to int7, as reduce_range does in a preset; for a file that runs on other "
        f"processors, or in sessions that set {SETTING}, export with the option exact_sums"
    )
