"""Rounding to a grid whose scale and zero point receive gradients (LSQ and LSQ+)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import tersely

FLOAT8 = {"float8_e4m3fn": torch.float8_e4m3fn, "float8_e5m2": torch.float8_e5m2}


def round_learned(
    value: Tensor, scale: Tensor, zero_point: Tensor, qparams: tersely.QParams
) -> Tensor:
    """Return the fake-quantized values, differentiable in value, scale and zero point.

    Esser et al., Learned Step Size Quantization, ICLR 2020, equations 1 to 3 and section 2.2;
    Bhalgat et al., LSQ+, CVPR workshop 2020, section 3.1, for the zero point. With
    q = value / scale + zero_point and g = 1 / sqrt(numel * quant_max):

        gradient to value       1 inside [quant_min, quant_max], 0 outside
        gradient to scale       g times: round(q) - q inside, quant_min - zero_point below,
                                quant_max - zero_point above
        gradient to zero_point  0 inside, -scale outside

    Args:
        value: any shape, any float dtype.
        scale: shape (blocks along each dimension), or one that broadcasts to ``value``; positive.
        zero_point: the scale's shape and dtype, integers.
        qparams: the integers' range, the dtype and the block size.

    Returns:
        ``value``'s shape and dtype; the values of `tersely.fake_quantize`.
    """
    result: Tensor = _RoundLearned.apply(  # type: ignore[no-untyped-call]  # torch has no types here
        value,
        _over_elements(scale, value, qparams),
        _over_elements(zero_point, value, qparams),
        qparams.quant_min,
        qparams.quant_max,
        qparams.dtype,
        (value.numel() * qparams.quant_max) ** -0.5,
    )
    return result


def _over_elements(per_block: Tensor, value: Tensor, qparams: tersely.QParams) -> Tensor:
    # One for each element, as a view if the layout allows it; its gradient is summed per block.
    if qparams.block_size is not None:
        return tersely.expand_blocks(per_block, qparams.block_size, value.shape)
    if per_block.ndim > value.ndim:  # a sample without a batch dimension
        per_block = per_block.reshape(per_block.shape[per_block.ndim - value.ndim :])
    return per_block.expand(value.shape)


def _levels(position: Tensor, quant_min: int, quant_max: int, dtype: str) -> Tensor:
    # The nearest values of the type, not clamped where it is an integer one.
    if dtype in FLOAT8:
        return position.clamp(quant_min, quant_max).to(FLOAT8[dtype]).to(position.dtype)
    return torch.round(position)


class _RoundLearned(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(
        value: Tensor,
        scale: Tensor,
        zero_point: Tensor,
        quant_min: int,
        quant_max: int,
        dtype: str,
        factor: float,
    ) -> Tensor:
        levels = _levels(value.to(scale.dtype) / scale, quant_min, quant_max, dtype)
        levels = (levels + zero_point).clamp(quant_min, quant_max)
        return ((levels - zero_point) * scale).to(value.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        value, scale, zero_point, ctx.quant_min, ctx.quant_max, ctx.dtype, ctx.factor = inputs
        ctx.save_for_backward(value, scale, zero_point)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        # An embedding may have sparse gradients, which its optimizer may require.
        rows = gradient.coalesce() if gradient.is_sparse else None
        gradient = gradient if rows is None else rows.to_dense()
        value, scale, zero_point = ctx.saved_tensors
        quant_min, quant_max = ctx.quant_min, ctx.quant_max
        position = value.to(scale.dtype) / scale
        place = position + zero_point
        is_below, is_above = place < quant_min, place > quant_max
        is_outside = is_below | is_above
        to_value = gradient.masked_fill(is_outside, 0)
        to_value = to_value if rows is None else to_value.sparse_mask(rows)
        wide = gradient.to(scale.dtype)
        slope = _levels(position, quant_min, quant_max, ctx.dtype) - position
        slope = torch.where(is_below, quant_min - zero_point, slope)
        slope = torch.where(is_above, quant_max - zero_point, slope)
        to_zero_point = (wide * -scale).masked_fill(~is_outside, 0)
        return to_value, wide * slope * ctx.factor, to_zero_point, None, None, None, None
