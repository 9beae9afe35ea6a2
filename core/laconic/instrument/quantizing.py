"""Quantization as transforms: scales and zero points are read from buffers of the module."""

from __future__ import annotations

from typing import ClassVar

import attrs
import torch
from torch import Tensor, nn

from laconic.affine import check_range
from laconic.algorithms import QParams, QuantizationTarget, Quantizer
from laconic.fake_quantization import fake_quantize_flat
from laconic.instrument.cutting import Cut
from laconic.instrument.names import QUANTIZE, SCALE, UNSCALE, learned_buffer, state_buffer
from laconic.instrument.transforms import chain_of
from laconic.quantizer_abilities import LearnsScales, Simulates
from laconic.ranges import block_range


@attrs.frozen
class Grid:
    """The values that a quantized tensor can take.

    Attributes:
        dtype: the quantized type, such as ``int8``.
        scheme: ``symmetric`` or ``affine``.
        quant_min: the smallest integer.
        quant_max: the largest integer.
    """

    dtype: str
    scheme: str
    quant_min: int
    quant_max: int


@attrs.frozen(eq=False)
class Quantize:
    """Fake-quantizes a tensor with the scale and zero point in its module's buffers.

    Attributes:
        target: the parameter's name or the address of the input or output.
        grid: the values it can take.
        cut: which values share a scale.
        clip_gradient: pass no gradient where a value lies outside of the range.
    """

    place: ClassVar[int] = QUANTIZE

    target: str
    grid: Grid
    cut: Cut
    clip_gradient: bool = False

    def qparams(self, module: nn.Module) -> QParams | None:
        """Return the parameters in force, or None while there are none."""
        scale = module._buffers.get(state_buffer(self.target, "scale"))
        if scale is None:
            return None
        zero_point = module._buffers.get(state_buffer(self.target, "zero_point"))
        if zero_point is None:
            zero_point = torch.zeros_like(scale, dtype=torch.int32)
        return self.made(scale, zero_point)

    def scale_shape(self, module: nn.Module) -> torch.Size | None:
        """Return the shape in which the scale is kept, or None while there is none."""
        scale = module._buffers.get(state_buffer(self.target, "scale"))
        return None if scale is None else scale.shape

    def made(self, scale: Tensor, zero_point: Tensor) -> QParams:
        """Return parameters for this tensor; those of a channel do not depend on the rank."""
        grid = self.grid
        return QParams(
            scale=scale,
            zero_point=zero_point,
            quant_min=grid.quant_min,
            quant_max=grid.quant_max,
            dtype=grid.dtype,
            scheme=grid.scheme,  # type: ignore[arg-type]  # one of the two
            block_size=None if scale.ndim == 0 else self.cut.fixed,
        )

    def fitted(self, module: nn.Module, value: Tensor) -> QParams | None:
        """Return the parameters in force for a value of any rank, or None while there are none.

        Args:
            module: the module that owns the target.
            value: the tensor.
        """
        found = self.qparams(module)
        if found is None or self.cut.fixed is not None or found.scale.ndim == 0:
            return found
        return found.evolve(
            scale=self.cut.fit(found.scale, value),
            zero_point=self.cut.fit(found.zero_point, value),
            block_size=self.cut.size_of(value) if self.cut.kind == "fixed" else None,
        )

    def __call__(self, module: nn.Module, value: Tensor) -> Tensor:
        """Return the quantized values as floats, or the tensor itself while there is no scale."""
        scale = module._buffers.get(state_buffer(self.target, "scale"))
        if scale is None:
            return value
        zero_point = module._buffers.get(state_buffer(self.target, "zero_point"))
        return self.apply(value, scale, zero_point)

    def apply(self, value: Tensor, scale: Tensor, zero_point: Tensor | None) -> Tensor:
        """Fake-quantize with given parameters.

        Args:
            value: the tensor.
            scale: one per block, in the shape that `Cut.canonical` gives it.
            zero_point: the scale's shape, or None for zeros.
        """
        scale = self.cut.fit(scale, value)
        if zero_point is not None:
            zero_point = self.cut.fit(zero_point, value)
        return fake_quantize_flat(
            value,
            scale,
            zero_point,
            quant_min=self.grid.quant_min,
            quant_max=self.grid.quant_max,
            dtype=self.grid.dtype,
            clip_gradient=self.clip_gradient,
        )


@attrs.frozen(eq=False)
class Dynamic:
    """Quantizes an input or output by the range of each call's own values.

    Attributes:
        quantizer: the algorithm.
        tensor: the target as the algorithm sees it.
        inner: what quantizes with the chosen parameters.
    """

    place: ClassVar[int] = QUANTIZE

    quantizer: Quantizer
    tensor: QuantizationTarget
    inner: Quantize

    def __call__(self, module: nn.Module, value: Tensor) -> Tensor:
        """Return the quantized values as floats."""
        if value.numel() == 0:
            return value
        values = value.detach()
        low, high = block_range(values, self.inner.cut.size_of(values))
        if self.inner.cut.kind == "tensor":
            low, high = low.reshape(()), high.reshape(())
        found = self.quantizer.choose(low, high, self.tensor)
        return self.inner.apply(value, found.scale, found.zero_point)


@attrs.frozen(eq=False)
class Follow:
    """Quantization-aware training: the range follows the values of training forwards (rule Q5).

    Attributes:
        quantizer: the algorithm.
        tensor: the target as the algorithm sees it.
        inner: what quantizes with the scale in force.
        decay: the share of the old range that stays.
        is_quantizing: whether values are quantized already, or only observed.
    """

    place: ClassVar[int] = QUANTIZE

    quantizer: Quantizer
    tensor: QuantizationTarget
    inner: Quantize
    decay: float
    is_quantizing: bool = True

    @property
    def settled(self) -> Quantize:
        """What quantizes with the range as it is."""
        return self.inner

    def __call__(self, module: nn.Module, value: Tensor) -> Tensor:
        """Return the quantized values as floats, after the range has followed them."""
        if module.training and value.numel():
            self._follow(module, value.detach())
        return self.inner(module, value) if self.is_quantizing else value

    @torch.no_grad()
    def _follow(self, module: nn.Module, values: Tensor) -> None:
        target, cut, buffers = self.inner.target, self.inner.cut, module._buffers
        size = cut.size_of(values)
        found = [cut.canonical(values, end) for end in block_range(values, size)]
        low, high = (
            end if before is None else before.lerp(end, 1 - self.decay)
            for before, end in zip(
                (buffers.get(state_buffer(target, part)) for part in ("low", "high")),
                _over_processes([end.float() for end in found]),
                strict=True,
            )
        )
        # Chosen before anything is written: what is not finite raises and leaves no trace.
        chosen = self.quantizer.choose(low, high, self.tensor)
        parts = {
            "low": low,
            "high": high,
            "scale": chosen.scale.reshape(low.shape),
            "zero_point": chosen.zero_point.reshape(low.shape),
        }
        if cut.kind == "fixed" and cut.fixed is None:
            parts["size"] = torch.tensor(size)
        for part, tensor in parts.items():
            current = buffers.get(state_buffer(target, part))
            if current is None:
                buffers[state_buffer(target, part)] = tensor.clone()
            else:
                current.copy_(tensor)


@attrs.frozen(eq=False)
class Simulated:
    """Quantizes a tensor in its algorithm's own way.

    Attributes:
        algorithm: the algorithm.
        tensor: the target as the algorithm sees it.
        inner: where the parameters in force are.
    """

    place: ClassVar[int] = QUANTIZE

    algorithm: Simulates
    tensor: QuantizationTarget
    inner: Quantize

    def __call__(self, module: nn.Module, value: Tensor) -> Tensor:
        """Return the quantized values as floats, or the tensor itself while there is no scale."""
        found = self.inner.fitted(module, value)
        return value if found is None else self.algorithm.simulate(value, found, self.tensor)


@attrs.frozen(eq=False)
class Learned:
    """Quantizes a tensor with what its algorithm learns; holds it, so copies need no session.

    Attributes:
        algorithm: the algorithm.
        tensor: the target as the algorithm sees it.
        inner: where the parameters it started from are.
        names: what is learned; when empty, whatever a checkpoint brought, or nothing yet.
    """

    place: ClassVar[int] = QUANTIZE
    is_learning: ClassVar[bool] = True

    algorithm: LearnsScales
    tensor: QuantizationTarget
    inner: Quantize
    names: tuple[str, ...] = ()

    def learned(self, module: nn.Module) -> dict[str, Tensor]:
        """Return what is learned, by name."""
        start = learned_buffer(self.inner.target, "")
        names = self.names or [
            name.removeprefix(start) for name in module._buffers if name.startswith(start)
        ]
        found = {}
        for name in names:
            tensor = module._buffers[start + name]
            assert tensor is not None  # never set to None
            found[name] = tensor
        return found

    def __call__(self, module: nn.Module, value: Tensor) -> Tensor:
        """Return the quantized values as floats, or the tensor itself while there is no scale."""
        start = self.inner.fitted(module, value)
        learned = self.learned(module)
        if start is None or not learned:
            return self.inner(module, value)
        shape = self.inner.scale_shape(module)
        if shape != start.scale.shape:
            # One value per channel, in a batch of another rank than the one it started from.
            learned = {
                name: tensor.reshape(start.scale.shape) if tensor.shape == shape else tensor
                for name, tensor in learned.items()
            }
        return self.algorithm.learned_values(value, start, learned, self.tensor)

    def meaning(self, module: nn.Module) -> QParams | None:
        """Return the parameters that what is learned stands for, or None while there are none."""
        start, learned = self.inner.qparams(module), self.learned(module)
        return start if start is None or not learned else self.algorithm.meaning(start, learned)


@attrs.frozen
class ScaleInput:
    """Divides the input channels of a module, whose weight is multiplied for it.

    Attributes:
        buffer: name of the buffer with one factor for each input channel.
        channel_dim: where channels lie: 1 or -1.
    """

    place: ClassVar[int] = SCALE

    buffer: str
    channel_dim: int = -1

    def __call__(self, module: nn.Module, value: Tensor) -> Tensor:
        """Return the divided tensor, or the tensor itself while there are no factors."""
        factors = module._buffers.get(self.buffer)
        if factors is None:
            return value
        if self.channel_dim == 1:
            factors = factors.view(-1, *(1,) * (value.ndim - 2))
        return value / factors.to(value.dtype)


@attrs.frozen
class ScaleWeight:
    """Multiplies (before quantization) or divides (after it) the input channels of a weight.

    Attributes:
        buffer: name of the buffer with one factor for each input channel.
        input_dim: the weight's dimension of input channels.
        is_inverse: whether to divide.
    """

    buffer: str
    input_dim: int
    is_inverse: bool = False

    @property
    def place(self) -> int:
        """Before or after quantization."""
        return UNSCALE if self.is_inverse else SCALE

    def __call__(self, module: nn.Module, value: Tensor) -> Tensor:
        """Return the scaled tensor, or the tensor itself while there are no factors."""
        factors = module._buffers.get(self.buffer)
        if factors is None:
            return value
        factors = along_inputs(factors, value, self.input_dim)
        return value / factors if self.is_inverse else value * factors


def along_inputs(factors: Tensor, weight: Tensor, input_dim: int) -> Tensor:
    """Return one factor for each input channel in a shape that goes with a weight.

    Args:
        factors: shape (inputs,).
        weight: the weight; that of a grouped convolution has the inputs of one group.
        input_dim: its dimension of input channels.
    """
    shape = [1] * weight.ndim
    length = weight.shape[input_dim]
    shape[input_dim] = length
    groups = factors.numel() // length
    if groups > 1:
        each = factors.view(groups, 1, length)
        factors = each.expand(groups, weight.shape[0] // groups, length).reshape(-1, length)
        shape[0] = weight.shape[0]
    return factors.reshape(shape).to(weight.dtype)


@attrs.frozen
class QuantizeBias:
    """Quantizes a bias as the accumulator of integer products has it: scale(input) * scale(weight).

    Attributes:
        target: the bias's name.
        source: the module's input address.
        weight: the weight's name.
        grid: the values it can take.
    """

    place: ClassVar[int] = QUANTIZE

    target: str
    source: str
    weight: str
    grid: Grid

    def qparams(self, module: nn.Module) -> QParams | None:
        """Return the derived parameters, or None while one of the scales is missing."""
        found = [qparams_of(module, name) for name in (self.source, self.weight)]
        if found[0] is None or found[1] is None:
            return None
        scale = (found[0].scale.detach().double() * found[1].scale.detach().double()).reshape(-1)
        whole = scale.numel() == 1
        scale = scale.reshape(()) if whole else scale
        return QParams(
            scale=scale,
            zero_point=torch.zeros_like(scale, dtype=torch.int32),
            quant_min=self.grid.quant_min,
            quant_max=self.grid.quant_max,
            dtype=self.grid.dtype,
            scheme="symmetric",
            block_size=None if whole else (1,),
        )

    def __call__(self, module: nn.Module, value: Tensor) -> Tensor:
        """Return the quantized values as floats."""
        found = self.qparams(module)
        if found is None:
            return value
        return fake_quantize_flat(
            value,
            found.scale,
            None,
            quant_min=found.quant_min,
            quant_max=found.quant_max,
            dtype=found.dtype,
        )


def qparams_of(module: nn.Module, target: str) -> QParams | None:
    """Return the parameters in force for a target, or None while there are none.

    Args:
        module: an instrumented module.
        target: the parameter's name or the address of the input or output.
    """
    for transform in chain_of(module, target):
        if isinstance(transform, Learned):
            return transform.meaning(module)
        if isinstance(transform, (Follow, Simulated)):
            return transform.inner.qparams(module)
        if isinstance(transform, (Quantize, QuantizeBias)):
            return transform.qparams(module)
    return None


def check_followed(module: nn.Module, target: str, name: str) -> None:
    """Refuse a range that training made unusable; compiled forwards do not look.

    Args:
        module: the module.
        target: the parameter's name or the address of the input or output.
        name: the target's full name.

    Raises:
        CalibrationError: the range is not finite.
    """
    low = module._buffers.get(state_buffer(target, "low"))
    high = module._buffers.get(state_buffer(target, "high"))
    if low is not None and high is not None:
        check_range(low, high, name)


def _over_processes(ends: list[Tensor]) -> list[Tensor]:
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()):
        return ends
    # One message: the largest value is minus the smallest of the negated ones.
    both = torch.stack([ends[0], -ends[1]])
    distributed.all_reduce(both, op=distributed.ReduceOp.MIN)
    return [both[0], -both[1]]
