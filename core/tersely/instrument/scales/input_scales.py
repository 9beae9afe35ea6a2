"""Input channels divided by factors, and the weights that take them: transforms."""

from __future__ import annotations

import attrs
from torch import Tensor, nn

from tersely.instrument.names import SCALE, UNSCALE


@attrs.frozen
class ScaleInput:
    """Divides (before quantization) or multiplies (after it) the input channels of a module.

    In a session its weight is multiplied for it; in a finished model, whose weight is that of its
    class, the input gets its size back.

    Attributes:
        buffer: name of the buffer with one factor for each input channel.
        channel_dim: where channels lie: 1 or -1.
        is_inverse: whether to multiply.
    """

    buffer: str
    channel_dim: int = -1
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
        if self.channel_dim == 1:
            factors = factors.view(-1, *(1,) * (value.ndim - 2))
        factors = factors.to(value.dtype)
        return value * factors if self.is_inverse else value / factors


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
