"""Choosing scale and zero point for an observed range."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tersely.arithmetic.grid import QuantizedGrid
from tersely.arithmetic.qparams import QParams
from tersely.arithmetic.quantized_types import FLOAT8
from tersely.errors import CalibrationError

SMALLEST_SCALE = torch.finfo(torch.float32).eps
"""No scale is smaller: an all-zero tensor must not divide by zero."""


def choose_qparams(low: Tensor, high: Tensor, target: QuantizedGrid) -> QParams:
    """Choose scale and zero point for an observed range, as the specification says.

    Symmetric: scale = max(abs(low), abs(high)) / ((quant_max - quant_min) / 2). Affine: scale =
    (high - low) / (quant_max - quant_min), with the zero point where zero falls. The range is
    widened to include zero first. Float8 types are symmetric around zero and only scaled. Under
    ``torch.compile`` the range is not checked: what it holds is not known there.

    Args:
        low: shape (blocks along each dimension) or 0-dim, float, the smallest value seen.
        high: ``low``'s shape, the largest value seen.
        target: the tensor to quantize.

    Returns:
        Scale: float32, or float64 where the range is. Zero point: int32. Both of ``low``'s shape,
        or 0-dim where the blocks are the whole tensor.

    Raises:
        CalibrationError: a range is empty or not finite.
    """
    if not torch.compiler.is_compiling():
        check_range(low, high, target.name)
    dtype = torch.float64 if low.dtype == torch.float64 else torch.float32
    low, high = low.detach().to(dtype).clamp(max=0), high.detach().to(dtype).clamp(min=0)
    is_whole = all(size == -1 for size in target.blocks.size)
    if is_whole:
        low, high = low.reshape(()), high.reshape(())
    quant_min, quant_max = target.quant_min, target.quant_max
    if target.dtype in FLOAT8 or target.scheme == "symmetric":
        half_steps = (quant_max - quant_min) / 2
        scale = (torch.maximum(-low, high) / half_steps).clamp(min=SMALLEST_SCALE)
        middle = 0 if target.dtype in FLOAT8 else (quant_max + quant_min + 1) // 2
        zero_point = torch.full_like(scale, middle, dtype=torch.int32)
    else:
        scale = ((high - low) / (quant_max - quant_min)).clamp(min=SMALLEST_SCALE)
        zero_point = (quant_min - torch.round(low / scale)).clamp(quant_min, quant_max)
    return QParams(
        scale=scale,
        zero_point=zero_point.to(torch.int32),
        quant_min=quant_min,
        quant_max=quant_max,
        dtype=target.dtype,
        scheme=target.scheme,
        block_size=None if is_whole else target.blocks.size,
    )


def check_range(low: Tensor, high: Tensor, name: str) -> None:
    """Refuse a range that nothing can be quantized with.

    Args:
        low: the smallest value of each block.
        high: the largest.
        name: the target's full name.

    Raises:
        CalibrationError: a range is empty or not finite.
    """
    # Whatever is not finite, and any high below low, makes this sum NaN or infinite: one number to
    # fetch. A difference may overflow, too, so only a finite sum decides.
    if math.isfinite((high - low).sqrt_().sum().item()):
        return
    is_usable = (low <= high) & low.isfinite() & high.isfinite()
    wrong = (~is_usable).flatten().nonzero().flatten()
    if len(wrong):
        index = int(wrong[0])
        raise CalibrationError(
            f"{name}: {len(wrong)} of its {low.numel()} observed ranges are unusable (the first "
            f"is {float(low.flatten()[index])} to {float(high.flatten()[index])}, at flat index "
            f"{index}); calibrate with data that reaches it, and check for NaN",
            target=name,
        )
