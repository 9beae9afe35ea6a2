"""Translations to ONNX of operators that PyTorch's exporter lacks or writes too generally.

Tokens are quantized by plain operators, from which `tersely_export.for_onnx.integer_products` makes
integer products: ``Cast(Clip(Round(x / s) + z))`` to quantize, ``(Cast(q) - z) * s`` to dequantize.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from onnxscript import opset21 as op

_OPERATORS = torch.ops.quantized_decomposed
_FLOAT, _INT32 = 1, 6
_FULL = {2: ((0, 255),), 3: ((-128, 127), (-127, 127)), 4: ((0, 65535),)}
_FULL[5] = ((-32768, 32767), (-32767, 32767))
"""Data type -> the ranges to which QuantizeLinear itself saturates, up to one step."""


def _constant(value: Any, dtype: int) -> Any:
    return op.Cast(op.Constant(value_float=float(value)), to=dtype)


def _bound(input: Any, scale: float, zero_point: int, limits: tuple[int, int], dtype: int) -> Any:
    if limits in _FULL.get(dtype, ()):
        return input
    ends = ((limit - zero_point) * scale for limit in limits)
    return op.Clip(input, *(_constant(end, _FLOAT) for end in ends))


def quantize_per_tensor(
    input: Any, scale: Any, zero_point: Any, quant_min: int, quant_max: int, dtype: int
) -> Any:
    """Translate numbers, and scales that the graph computes."""
    if isinstance(scale, (int, float)):
        value = _bound(input, scale, zero_point, (quant_min, quant_max), dtype)
        return op.QuantizeLinear(value, _constant(scale, _FLOAT), _constant(zero_point, dtype))
    return op.QuantizeLinear(
        input, op.Cast(scale, to=_FLOAT), op.Cast(op.Cast(zero_point, to=_INT32), to=dtype)
    )


def dequantize_per_tensor(
    input: Any,
    scale: Any,
    zero_point: Any,
    quant_min: int,
    quant_max: int,
    dtype: int,
    out_dtype: int = -1,
) -> Any:
    """Translate numbers, and scales that the graph computes."""
    if isinstance(scale, (int, float)):
        found = op.DequantizeLinear(input, _constant(scale, _FLOAT), _constant(zero_point, dtype))
    else:
        found = op.DequantizeLinear(
            input, op.Cast(scale, to=_FLOAT), op.Cast(op.Cast(zero_point, to=_INT32), to=dtype)
        )
    return _as(found, out_dtype)


def quantize_per_channel(
    input: Any,
    scales: Any,
    zero_points: Any,
    axis: int,
    quant_min: int,
    quant_max: int,
    dtype: int,
) -> Any:
    """Translate one scale for each index of a dimension."""
    found = op.QuantizeLinear(
        input, op.Cast(scales, to=_FLOAT), op.Cast(zero_points, to=dtype), axis=axis
    )
    if (quant_min, quant_max) in _FULL.get(dtype, ()):
        return found
    return op.Clip(found, _constant(quant_min, dtype), _constant(quant_max, dtype))


def dequantize_per_channel(
    input: Any,
    scales: Any,
    zero_points: Any,
    axis: int,
    quant_min: int,
    quant_max: int,
    dtype: int,
    out_dtype: int = -1,
) -> Any:
    """Translate one scale for each index of a dimension."""
    return _read(input, scales, zero_points, dtype, out_dtype, axis=axis)


def dequantize_per_channel_group(
    input: Any,
    scales: Any,
    zero_points: Any,
    quant_min: int,
    quant_max: int,
    dtype: int,
    group_size: int,
    output_dtype: int = _FLOAT,
) -> Any:
    """Translate runs along the last dimension: blocks of axis 1."""
    return _read(input, scales, zero_points, dtype, output_dtype, axis=1, block_size=group_size)


def quantize_per_token(
    input: Any, scales: Any, zero_points: Any, quant_min: int, quant_max: int, dtype: int
) -> Any:
    """Translate one scale for each row along the last dimension."""
    levels = op.Add(op.Round(op.Div(input, scales)), op.Cast(zero_points, to=_FLOAT))
    ends = (_constant(end, _FLOAT) for end in (quant_min, quant_max))
    return op.Cast(op.Clip(levels, *ends), to=dtype)


def dequantize_per_token(
    input: Any,
    scales: Any,
    zero_points: Any,
    quant_min: int,
    quant_max: int,
    dtype: int,
    output_dtype: int = _FLOAT,
) -> Any:
    """Translate one scale for each row along the last dimension."""
    levels = op.Sub(op.Cast(input, to=_FLOAT), op.Cast(zero_points, to=_FLOAT))
    return _as(op.Mul(levels, scales), output_dtype)


def linear(input: Any, weight: Any, bias: Any = None) -> Any:
    """Translate to MatMul and Add, for which integer kernels exist, never to Gemm."""
    found = op.MatMul(input, op.Transpose(weight, perm=[1, 0]))
    return found if bias is None else op.Add(found, bias)


def addmm(bias: Any, first: Any, second: Any, beta: float = 1.0, alpha: float = 1.0) -> Any:
    """Translate to MatMul and Add, for which integer kernels exist, never to Gemm."""
    found = op.MatMul(first, second)
    if alpha != 1.0:
        found = op.Mul(found, _constant(alpha, _FLOAT))
    if beta != 1.0:
        bias = op.Mul(bias, _constant(beta, _FLOAT))
    return op.Add(found, bias)


def _read(
    input: Any, scales: Any, zero_points: Any, dtype: int, out_dtype: int, **where: int
) -> Any:
    found = op.DequantizeLinear(
        input, op.Cast(scales, to=_FLOAT), op.Cast(zero_points, to=dtype), **where
    )
    return _as(found, out_dtype)


def _as(value: Any, dtype: int | None) -> Any:
    return value if dtype in (-1, None, _FLOAT) else op.Cast(value, to=dtype)


def table() -> Mapping[Any, Callable[..., Any]]:
    """Return operator -> translation."""
    return {
        _OPERATORS.quantize_per_tensor.default: quantize_per_tensor,
        _OPERATORS.quantize_per_tensor.tensor: quantize_per_tensor,
        _OPERATORS.dequantize_per_tensor.default: dequantize_per_tensor,
        _OPERATORS.dequantize_per_tensor.tensor: dequantize_per_tensor,
        _OPERATORS.quantize_per_channel.default: quantize_per_channel,
        _OPERATORS.dequantize_per_channel.default: dequantize_per_channel,
        _OPERATORS.dequantize_per_channel_group.default: dequantize_per_channel_group,
        _OPERATORS.quantize_per_token.default: quantize_per_token,
        _OPERATORS.dequantize_per_token.default: dequantize_per_token,
        torch.ops.aten.linear.default: linear,
        torch.ops.aten.addmm.default: addmm,
    }
