"""Quantization in an algorithm's own way, as transforms: by each call, simulated, or learned."""

from __future__ import annotations

from typing import ClassVar

import attrs
from torch import Tensor, nn

from tersely.arithmetic.qparams import QParams
from tersely.arithmetic.ranges import block_range
from tersely.contracts.quantized_forward import LearnsScales, Simulates
from tersely.contracts.quantizer import QuantizationTarget, Quantizer, choose_of
from tersely.instrument.names import QUANTIZE, learned_buffer
from tersely.instrument.scales.quantizing import Quantize, need_float, where_in_force
from tersely.instrument.scales.target_scales import scales_of


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
        need_float(value, self.tensor.name)
        if value.numel() == 0:
            return value
        values = value.detach()
        low, high = block_range(values, self.inner.cut.size_of(values))
        if self.inner.cut.kind == "tensor":
            low, high = low.reshape(()), high.reshape(())
        found = choose_of(self.quantizer)(low, high, self.tensor)
        return self.inner.apply(value, found.scale, found.zero_point, found.levels)


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
        found = scales_of(module, self.inner.target)
        if found is None:
            return value
        scale, zero_point, share = found
        qparams = self.inner.fit(module, self.inner.kept(module, scale, zero_point), value)
        values = self.algorithm.simulate(value, qparams, self.tensor)
        return where_in_force(share, values, value)


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
        found, learned = scales_of(module, self.inner.target), self.learned(module)
        if found is None or not learned:
            return self.inner(module, value)
        scale, zero_point, share = found
        start = self.inner.fit(module, self.inner.kept(module, scale, zero_point), value)
        shape = scale.shape
        if shape != start.scale.shape:
            # One value per channel, in a batch of another rank than the one it started from.
            learned = {
                name: tensor.reshape(start.scale.shape) if tensor.shape == shape else tensor
                for name, tensor in learned.items()
            }
        values = self.algorithm.learned_values(value, start, learned, self.tensor)
        return where_in_force(share, values, value)

    def meaning(self, module: nn.Module) -> QParams | None:
        """Return the parameters that learned tensors represent, or None while there are none."""
        start, learned = self.inner.qparams(module), self.learned(module)
        return start if start is None or not learned else self.algorithm.meaning(start, learned)
