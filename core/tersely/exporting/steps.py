"""Transforms that replace a session's own while a model is exported."""

from __future__ import annotations

from typing import ClassVar

import attrs
import torch
from torch import Tensor, nn

from tersely.arithmetic.broadcasting import implied_size
from tersely.arithmetic.qparams import QParams
from tersely.arithmetic.quantized_types import FLOAT8
from tersely.arithmetic.ranges import block_range
from tersely.contracts.quantizer import choose_of
from tersely.errors import ExportError
from tersely.exporting.operators import (
    dequantize,
    quantize_dequantize,
    quantize_dequantize_call,
    quantize_dequantize_tokens,
)
from tersely.instrument.names import QUANTIZE
from tersely.instrument.scales.by_algorithm import Dynamic
from tersely.instrument.scales.input_scales import along_inputs
from tersely.instrument.scales.quantizing import Quantize, need_float


@attrs.frozen(eq=False)
class ReadIntegers:
    """Reads a parameter that was replaced by integers.

    Attributes:
        scale: the number, or the name of the buffer with one scale per block, shape (blocks,).
        zero_point: the number, or the name of the buffer with ``scale``'s shape.
        size: elements per block.
        limits: the smallest and largest integer.
        out: the parameter's dtype.
        factors: the name of the buffer by which input channels are divided, or None.
        input_dim: the dimension of input channels.
    """

    place: ClassVar[int] = QUANTIZE

    scale: str | float
    zero_point: str | float
    size: tuple[int, ...]
    limits: tuple[int, int]
    out: torch.dtype
    factors: str | None = None
    input_dim: int = 1

    def __call__(self, module: nn.Module, value: Tensor) -> Tensor:
        """Return the dequantized values."""
        scale, zero_point = (
            module._buffers[one] if isinstance(one, str) else one
            for one in (self.scale, self.zero_point)
        )
        assert scale is not None  # set together with the integers
        assert zero_point is not None
        found = dequantize(
            value,
            scale,
            zero_point,
            size=self.size,
            limits=self.limits,
            out=self.out,
        )
        if self.factors is None:
            return found
        factors = module._buffers[self.factors]
        assert factors is not None  # set together with the integers
        return found / along_inputs(factors, found, self.input_dim)


@attrs.frozen(eq=False)
class RoundFixed:
    """Quantizes an input or output with the scales in force.

    Attributes:
        inner: the session's transform, which has the scales.
        name: the target's full name.
        qparams: the scales.
    """

    place: ClassVar[int] = QUANTIZE

    inner: Quantize
    name: str
    qparams: QParams

    def __call__(self, module: nn.Module, value: Tensor) -> Tensor:
        """Return the dequantized values."""
        need_single(value, self.name)
        found = self.qparams
        limits = (found.quant_min, found.quant_max)
        if found.scale.numel() == 1:
            scale, zero_point = float(found.scale), int(found.zero_point)
            return quantize_dequantize(
                value, scale, zero_point, size=(-1,) * value.ndim, limits=limits
            )
        self.inner.need_lengths(module, value, found.scale)
        return quantize_dequantize(
            value,
            found.scale.reshape(-1),
            found.zero_point.reshape(-1).long(),
            size=self.inner.cut.size_of(value),
            limits=limits,
        )


@attrs.frozen(eq=False)
class RoundCall:
    """Quantizes an input or output with the range of each call's own values.

    Attributes:
        dynamic: the session's transform.
        name: the target's full name.
    """

    place: ClassVar[int] = QUANTIZE

    dynamic: Dynamic
    name: str

    def __call__(self, module: nn.Module, value: Tensor) -> Tensor:
        """Return the dequantized values."""
        need_single(value, self.name)
        cut = self.dynamic.inner.cut
        size = cut.size_of(value)
        is_whole = cut.kind == "tensor"
        if is_whole:
            dims = tuple(range(value.ndim))
            low, high = value.amin(dims), value.amax(dims)
        elif cut.kind == "token":
            # Dynamic lengths are not counted.
            low, high = value.amin(-1, keepdim=True), value.amax(-1, keepdim=True)
        else:
            low, high = block_range(value, size)
        found = choose_of(self.dynamic.quantizer)(low, high, self.dynamic.tensor)
        grid = self.dynamic.inner.grid
        limits = (grid.quant_min, grid.quant_max)
        if is_whole:
            return quantize_dequantize_call(value, found.scale, found.zero_point, limits=limits)
        if cut.kind == "token":
            return quantize_dequantize_tokens(value, found.scale, found.zero_point, limits=limits)
        return quantize_dequantize(
            value,
            found.scale.reshape(-1),
            found.zero_point.reshape(-1),
            size=size,
            limits=limits,
        )


def need_single(value: Tensor, name: str) -> None:
    """Refuse values that the operators of an exported program do not take.

    Args:
        value: an input or output.
        name: its full name.

    Raises:
        CalibrationError: it holds no floating-point values.
        ExportError: it holds float64.
    """
    need_float(value, name)
    if value.dtype == torch.float64:
        raise ExportError(
            "an exported program quantizes float32, float16 and bfloat16, and this is float64; "
            "export model.float()",
            target=name,
        )


def need_integers(qparams: QParams, name: str) -> None:
    """Refuse parameters that the operators of an exported program cannot read.

    Args:
        qparams: how a target is quantized.
        name: its full name.

    Raises:
        ExportError: it is quantized to a floating-point type, or to a table of levels.
    """
    if qparams.levels is not None:
        raise ExportError(
            "an exported program reads integers as multiples of a scale, and these are indices "
            "into a table of levels; export to safetensors, which holds the table",
            target=name,
        )
    if qparams.dtype in FLOAT8:
        raise ExportError(
            f"an exported program holds integers, and this is quantized to {qparams.dtype}; "
            "quantize it to int8, or leave it out",
            target=name,
        )


def block_size_of(qparams: QParams, shape: torch.Size) -> tuple[int, ...]:
    """Return the elements per block of a parameter, one integer per dimension.

    Args:
        qparams: how it is quantized.
        shape: its shape.
    """
    if qparams.block_size is not None:
        return tuple(qparams.block_size)
    counts = (1,) * (len(shape) - qparams.scale.ndim) + tuple(qparams.scale.shape)
    implied = implied_size(counts, shape)
    if implied is not None:
        return implied
    return tuple(-1 if one == 1 else 1 for one in counts)
