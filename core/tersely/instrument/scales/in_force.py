"""The scales in force, from any source, and the biases whose scale follows from two of them."""

from __future__ import annotations

from typing import ClassVar

import attrs
import torch
from torch import Tensor, nn

from tersely.arithmetic.fake_quantization import fake_quantize_flat
from tersely.arithmetic.qparams import QParams
from tersely.instrument.names import QUANTIZE
from tersely.instrument.scales.by_algorithm import Learned, Simulated
from tersely.instrument.scales.moving_range import Follow
from tersely.instrument.scales.quantizing import Grid, Quantize
from tersely.instrument.transforms import chain_of, processed


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


@attrs.frozen
class LeastScale:
    """The smallest scale of a weight with which its bias fits int32 (rule Q1.6).

    Attributes:
        bias: what quantizes the bias.
    """

    bias: QuantizeBias

    @torch.no_grad()
    def __call__(self, module: nn.Module, scale: Tensor) -> Tensor | None:
        """Return the smallest scales, or None while the input has no scale of its own.

        Args:
            module: the module that owns weight and bias.
            scale: the weight's scale, one or one for each output channel.

        Returns:
            ``scale``'s shape and dtype.
        """
        source = qparams_of(module, self.bias.source)
        raw = module._parameters.get(self.bias.target)
        if source is None or raw is None:
            return None
        value = processed(module, self.bias.target, raw.detach(), until=QUANTIZE).abs().double()
        least = value / (source.scale.detach().double().reshape(()) * self.bias.grid.quant_max)
        if scale.numel() == 1:
            least = least.amax()
        # A little more, for what rounding it takes away.
        return (least * (1 + 2**-22)).to(scale.dtype).reshape(scale.shape)
