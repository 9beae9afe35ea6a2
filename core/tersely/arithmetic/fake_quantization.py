"""Fake quantization as one differentiable function of plain tensors and numbers.

It runs in every forward, so it allocates its result and works in place from there on. The
arguments are flat so that ``torch.compile`` and ``torch.export`` see only tensors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch._functorch.utils import unwrap_dead_wrappers
from torch.autograd import forward_ad

from tersely.arithmetic.broadcasting import implied_size, interleaved_shape, lay_out
from tersely.arithmetic.level_tables import nearest_values
from tersely.arithmetic.levels import (
    Limits,
    divide,
    is_cut,
    precision,
    simulate,
    to_levels_,
    to_values_,
    with_rank,
)
from tersely.arithmetic.quantized_types import FLOAT8
from tersely.arithmetic.reused_memory import empty_like


def fake_quantize_flat(  # noqa: PLR0913  # flat, as compiled graphs see plain numbers alone
    value: Tensor,
    scale: Tensor,
    zero_point: Tensor | None,
    *,
    quant_min: int,
    quant_max: int,
    dtype: str | None = None,
    size: Sequence[int] | None = None,
    clip_gradient: bool = False,
    is_zero_first: bool = False,
    levels: Tensor | None = None,
    known: Tensor | None = None,
) -> Tensor:
    """Quantize and dequantize (rule Q2.5, Q2.6 for a float8 type, Q7.2 for levels), half to even.

    Computed in float32, or float64 where the scale is. No gradient reaches the scale or the zero
    point.

    Args:
        value: any shape, float.
        scale: shape (blocks along each dimension), or one that broadcasts against ``value``. Float,
            positive, value units per integer step.
        zero_point: scale's shape, whole numbers of any dtype, or None where all of them are zero,
            which is a quarter faster.
        quant_min: the smallest integer, 0 or below.
        quant_max: the largest integer, 0 or above.
        dtype: the quantized type, such as ``int8``; all that matters of it is whether it is float8.
        size: elements per block, one integer per dimension, -1 = the whole dimension; None for
            what the shape of the scale implies.
        clip_gradient: pass no gradient where ``value / scale + zero_point``, not rounded, lies
            outside the range, or ``value / scale`` outside of the table. Otherwise the gradient
            passes as it is. This keeps ``value`` for backward, which takes no new memory for a
            parameter.
        is_zero_first: add the zero point before rounding (rule Q7.1); it may be any number.
        levels: shape (levels,), ascending, the table to whose nearest entry values go; or None. The
            zero point and the integers count for nothing then.
        known: what the same arguments have given before, or None. Nothing is computed then but the
            gradient.

    Returns:
        ``value``'s shape and dtype; memory of its own, or that of ``known``.

    Raises:
        ValueError: blocks do not divide the shape, or the scale does not have one value per block.
    """
    shape = inner = tuple(value.shape)
    if size is None:
        size = implied_size(scale.shape, shape)
    if size is not None:
        inner = interleaved_shape(size, shape)
        scale = lay_out(scale, size, shape)
        zero_point = None if zero_point is None else lay_out(zero_point, size, shape)
    if zero_point is not None:
        # Adding and subtracting integers would convert them each time.
        zero_point = zero_point.to(precision(scale))
    if levels is not None:
        levels = levels.to(precision(scale))
    return _apply(
        value,
        scale,
        zero_point,
        quant_min,
        quant_max,
        FLOAT8.get(dtype) if dtype else None,
        clip_gradient,
        None if inner == shape else inner,
        is_zero_first,
        levels,
        known,
    )


def _apply(*arguments: Any) -> Tensor:
    function: Any = _FakeQuantize
    if torch.compiler.is_compiling():
        pass
    elif forward_ad._current_level >= 0:
        function = _InForwardMode
    elif not torch._C._are_functorch_transforms_active():
        # What `apply` comes to. It reads the signature of forward at every call to fill in
        # defaults, of which there are none, and that takes longer than to quantize a small tensor.
        function = super(torch.autograd.Function, _FakeQuantize)
        arguments = unwrap_dead_wrappers(arguments)
    result: Tensor = function.apply(*arguments)
    return result


class _FakeQuantize(torch.autograd.Function):
    generate_vmap_rule = True  # a gradient for each sample, as torch.func takes it

    @staticmethod
    def forward(  # noqa: PLR0913, PLR0917  # as apply takes them
        value: Tensor,
        scale: Tensor,
        zero_point: Tensor | None,
        quant_min: int,
        quant_max: int,
        float8: torch.dtype | None,
        clip_gradient: bool,
        inner: tuple[int, ...] | None,
        is_zero_first: bool,
        levels: Tensor | None,
        known: Tensor | None,
    ) -> Tensor:
        if known is not None:
            return known.detach()
        # Viewed here and not by the caller: a gradient of rows alone has no other shape.
        shape = value.shape
        value = value if inner is None else value.view(inner)
        if levels is not None:
            return _as(nearest_values(value, scale, levels), shape)
        limits = Limits(quant_min, quant_max, float8, is_zero_first)
        if is_cut(value):
            result = empty_like(value)
            rank = value.ndim
            scale = with_rank(scale, rank)
            zero_point = None if zero_point is None else with_rank(zero_point, rank)
            simulate(value, scale, zero_point, limits, into=result)
            return _as(result, shape)
        found = to_levels_(divide(value, scale), zero_point, limits)
        return _as(to_values_(found, scale, zero_point, limits).to(value.dtype), shape)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        value, scale, zero_point, ctx.quant_min, ctx.quant_max, _, ctx.clip_gradient, *rest = inputs
        ctx.inner, _, levels, _ = rest
        if ctx.clip_gradient:
            ctx.save_for_backward(value, scale, zero_point, levels)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return _passed(ctx, gradients[0]), *(None,) * 10


class _InForwardMode(_FakeQuantize):
    """The same with a derivative in forward mode, which torch.compile does not take."""

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _FakeQuantize.setup_context(ctx, inputs, output)
        if ctx.clip_gradient:
            value, scale, zero_point, *_, levels, _ = inputs
            ctx.save_for_forward(value, scale, zero_point, levels)

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor | None, *_: None) -> Tensor | None:
        # The Jacobian is diagonal, so that forward and backward multiply by the same.
        return None if tangent is None else _passed(ctx, tangent).clone()


def _passed(ctx: Any, gradient: Tensor) -> Tensor:
    if not ctx.clip_gradient:
        return gradient
    value, scale, zero_point, levels = ctx.saved_tensors
    inner = value.shape if ctx.inner is None else ctx.inner
    position = divide(value.view(inner), scale)
    # An embedding may give rows alone, which its optimizer may insist on.
    rows = gradient.coalesce() if gradient.is_sparse else None
    dense = (gradient if rows is None else rows.to_dense()).reshape(inner)
    if levels is not None:
        is_inside = (position >= levels[0]) & (position <= levels[-1])
        inside = torch.where(is_inside, dense, 0)
    else:
        if zero_point is not None:
            position.add_(zero_point)
        inside = _inside(dense, position, ctx.quant_min, ctx.quant_max)
    gradient = inside.view(value.shape)
    return gradient if rows is None else gradient.sparse_mask(rows)


def _as(result: Tensor, shape: torch.Size) -> Tensor:
    # A view made in a Function could not be changed in place by whoever gets it.
    return result if result.shape == shape else torch.ops.aten._unsafe_view(result, shape)


def _inside(gradient: Tensor, position: Tensor, quant_min: int, quant_max: int) -> Tensor:
    # One kernel selects by both limits; comparing, joining and multiplying by the truth is three
    # times slower. It leaves its limits out, so it gets the next numbers outside of ours.
    limits = torch.finfo(position.dtype)
    outside = [
        # Three quarters of eps round to one unit in the last place, whatever the mantissa.
        limit + sign * max(abs(limit) * limits.eps * 0.75, limits.smallest_normal * limits.eps)
        for limit, sign in ((quant_min, -1), (quant_max, 1))
    ]
    select = torch.ops.aten.hardtanh_backward
    if _is_writable(position, gradient):
        # Memory of its own would cost about as much as the selection.
        select.grad_input(gradient, position, *outside, grad_input=position)
        return position
    passed: Tensor = select(gradient, position, *outside)
    return passed.to(gradient.dtype)


def _is_writable(position: Tensor, gradient: Tensor) -> bool:
    """Tell whether what is selected of a gradient may take the place of the positions."""
    # A gradient of a gradient is not taken of what is written, nor does a compiler follow it.
    if torch.compiler.is_compiling() or torch.is_grad_enabled():
        return False
    if forward_ad._current_level >= 0:
        return False  # nor has what is written a derivative in forward mode
    is_batched = (
        torch._C._are_functorch_transforms_active()
        or torch._C._functorch.is_functorch_wrapped_tensor(gradient)
        or torch._C._functorch.is_legacy_batchedtensor(gradient)
    )
    return type(gradient) is Tensor and not is_batched and gradient.dtype == position.dtype
