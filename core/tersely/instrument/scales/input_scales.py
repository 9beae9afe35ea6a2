"""Input channels divided by factors, and the weights that take them: one transform for both."""

from __future__ import annotations

import attrs
from torch import Tensor, nn

from tersely.instrument.names import SCALE, UNSCALE


@attrs.frozen
class ScaleChannels:
    """Multiplies the input channels of a weight by factors, or divides the input by them.

    In a session the one goes with the other. A finished weight is that of its class, so what was
    multiplied is divided again: by `undone`, which comes after quantization.

    Attributes:
        buffer: name of the buffer with one factor for each input channel, of each expert where the
            weight stacks some.
        dim: the dimension of input channels.
        divides: whether to divide rather than multiply.
        place: before quantization, or after it.
        is_of_experts: whether the weight stacks a matrix for each expert. Their factors are taken
            back after quantization, unless all experts share those that divide the input.
    """

    buffer: str
    dim: int
    divides: bool = False
    place: int = SCALE
    is_of_experts: bool = False

    def undone(self) -> ScaleChannels:
        """Return what takes the factors back after quantization."""
        return attrs.evolve(self, divides=not self.divides, place=UNSCALE)

    def __call__(self, module: nn.Module, value: Tensor) -> Tensor:
        """Return the scaled tensor, or the tensor itself while there are no factors."""
        factors = module._buffers.get(self.buffer)
        if factors is None:
            return value
        factors = along_inputs(factors, value, self.dim)
        return value / factors if self.divides else value * factors


def along_inputs(factors: Tensor, weight: Tensor, input_dim: int) -> Tensor:
    """Return one factor for each input channel in a shape that goes with a tensor.

    Args:
        factors: shape (inputs,), or (experts, inputs) where dimension 0 of the weight is experts.
        weight: a weight or an input; the weight of a grouped convolution has the inputs of one
            group.
        input_dim: its dimension of input channels.
    """
    shape = [1] * weight.ndim
    if factors.ndim > 1:
        shape[0], shape[input_dim] = factors.shape
        return factors.reshape(shape).to(weight.dtype)
    length = weight.shape[input_dim]
    shape[input_dim] = length
    groups = factors.numel() // length
    if groups > 1:
        each = factors.view(groups, 1, length)
        factors = each.expand(groups, weight.shape[0] // groups, length).reshape(-1, length)
        shape[0] = weight.shape[0]
    return factors.reshape(shape).to(weight.dtype)
