"""Which output channels of a module are the input channels of a weight, where they are not all.

What is between a projection and the weight that reads it, for H heads of size d:

==============================  ==========================================================
outputs of the module           what reads it
==============================  ==========================================================
values of K < H heads           every head of values H / K times, one after the other
queries, keys, values           the values, perhaps repeated
the three of each head          the values of each head
keys and values of each head    the values of each head
gates, then what they gate      the second half, or the first where gates come last
gates and what they gate        every second one
==============================  ==========================================================
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator

import attrs
import torch
from attrs.validators import ge, instance_of
from torch import Tensor

_COUNT = [instance_of(int), ge(1)]

_USUAL = 64
_GUESSES = 6
"""How many head sizes are tried if the model states none, those nearest to the usual one."""


@attrs.frozen
class OutputRows:
    """The outputs that the inputs of a weight are made of, in runs of channels.

    Input channel c is made of output ``start + c // size // repeats * step + c % size``.

    Attributes:
        outputs: how many output channels the module has.
        start: the first of them that is read.
        step: how far it is from one run to the next.
        size: how many channels a run has.
        repeats: how many times each run is read.
    """

    outputs: int = attrs.field(validator=_COUNT)
    start: int = attrs.field(validator=[instance_of(int), ge(0)])
    step: int = attrs.field(validator=_COUNT)
    size: int = attrs.field(validator=_COUNT)
    repeats: int = attrs.field(default=1, validator=_COUNT)

    def fits(self, channels: int) -> bool:
        """Tell whether a weight can have so many inputs.

        Args:
            channels: how many input channels it has.
        """
        is_whole = channels % (self.size * self.repeats) == 0
        return is_whole and int(self.index(channels).amax()) < self.outputs

    def is_partial(self, channels: int) -> bool:
        """Tell whether some outputs are not read.

        Args:
            channels: how many input channels there are.
        """
        return self.outputs * self.repeats != channels

    def index(self, channels: int) -> Tensor:
        """Return the output of each input channel, int64, shape (channels,).

        Args:
            channels: how many input channels there are.
        """
        every = torch.arange(channels)
        return self.start + every // self.size // self.repeats * self.step + every % self.size

    def repeated(self, values: Tensor) -> Tensor:
        """Give inputs the values of the outputs that they are made of.

        Args:
            values: those of the outputs that are read, in the order of their first reading.

        Returns:
            Shape (channels,), as many times more as outputs repeat.
        """
        runs = values.view(-1, 1, self.size)
        return runs.expand(-1, self.repeats, -1).reshape(-1)

    def tied(self, factors: Tensor) -> Tensor:
        """Return factors that are equal where one output serves several inputs.

        Args:
            factors: positive, shape (..., channels).

        Returns:
            The geometric mean of those that have to be equal, the same shape.
        """
        if self.repeats == 1:
            return factors
        runs = self._runs(factors)
        means = runs.double().log().mean(-2, keepdim=True).exp().to(factors.dtype)
        return means.expand_as(runs).reshape(factors.shape)

    def is_tied(self, factors: Tensor) -> bool:
        """Tell whether factors are equal where one output serves several inputs.

        Args:
            factors: shape (..., channels).
        """
        runs = self._runs(factors)
        return bool((runs == runs[..., :1, :]).all())

    def _runs(self, factors: Tensor) -> Tensor:
        return factors.reshape(*factors.shape[:-1], -1, self.repeats, self.size)

    def of_outputs(self, factors: Tensor) -> Tensor:
        """Return the factor of each output; those that are not read have 1.

        Args:
            factors: tied, shape (..., channels).

        Returns:
            Shape (..., outputs).
        """
        found = factors.new_ones(*factors.shape[:-1], self.outputs)
        found[..., self.index(factors.shape[-1]).to(factors.device)] = factors
        return found


def row_layouts(outputs: int, inputs: int, *, heads: Collection[int] = ()) -> Iterator[OutputRows]:
    """Yield the ways in which some outputs of one module may be the inputs of a weight.

    Args:
        outputs: output channels of the module.
        inputs: input channels of the weight, of which there are more or fewer.
        heads: the sizes that heads may have; none says that the usual ones will do.
    """
    if outputs < inputs:
        if inputs % outputs == 0:
            for size in _sizes(outputs, heads):
                yield OutputRows(outputs, 0, size, size, inputs // outputs)
        return
    if outputs == 2 * inputs:
        yield OutputRows(outputs, inputs, inputs, inputs)
        yield OutputRows(outputs, 0, inputs, inputs)
        yield OutputRows(outputs, 1, 2, 1)
        yield OutputRows(outputs, 0, 2, 1)
        for size in _sizes(inputs, heads):
            if size < inputs:
                yield OutputRows(outputs, size, 2 * size, size)
    rest = outputs - inputs
    values = rest // 2
    if values < 1 or rest % 2 or inputs % values:
        return
    repeats = inputs // values
    if repeats == 1:
        yield OutputRows(outputs, 2 * inputs, inputs, inputs)
    for size in _sizes(values, heads):
        if repeats > 1:
            yield OutputRows(outputs, inputs + values, size, size, repeats)
        if size < values:
            yield OutputRows(outputs, (repeats + 1) * size, (repeats + 2) * size, size, repeats)


def _sizes(channels: int, heads: Collection[int]) -> list[int]:
    # A single channel is not a head, and one run of all channels is one head.
    sizes = [size for size in range(channels, 1, -1) if channels % size == 0]
    if heads:
        return [size for size in sizes if size in heads]
    return sorted(sizes, key=lambda size: abs(math.log2(size / _USUAL)))[:_GUESSES]
