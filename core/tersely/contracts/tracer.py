"""What a dependency tracer implements: which parameters share output channels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import attrs
from torch import nn


@attrs.frozen
class ChannelBlocks:
    """How the channels of one parameter become blocks that go together.

    Attributes:
        parts: equal parts, of which block i of each goes with block i of all.
        rows: neighbouring channels in a block.
    """

    parts: int = 1
    rows: int = 1

    def block_of(self, channel: int, count: int) -> int:
        """Return the block of a channel.

        Args:
            channel: its position.
            count: how many channels there are.
        """
        return channel % (count // self.parts) // self.rows


@attrs.frozen(kw_only=True)
class SharedChannels:
    """Parameters that make the same output channels, as on both sides of an addition.

    Attributes:
        parameters: their full names; block i of the output channels of each is removed together
            with block i of all.
        runs: equal runs of the blocks that have to lose equally many, as for the groups of a
            convolution or the heads of an attention.
        cuttings: for each parameter how its channels become blocks, as in a packed projection of
            query, key and value; empty where each channel is a block.
        is_tied_to_itself: whether different channels of one parameter also go together in a way
            that ``cuttings`` does not say.
    """

    parameters: tuple[str, ...]
    runs: int = 1
    cuttings: tuple[ChannelBlocks, ...] = ()
    is_tied_to_itself: bool = False

    def cutting_of(self, parameter: str) -> ChannelBlocks:
        """Return how the channels of one of the parameters become blocks.

        Args:
            parameter: its full name.
        """
        if not self.cuttings:
            return ChannelBlocks()
        return self.cuttings[self.parameters.index(parameter)]


@runtime_checkable
class DependencyTracer(Protocol):
    """Finds out which parameters share output channels."""

    def trace(
        self, model: nn.Module, example_inputs: Any, *, parameters: Sequence[str]
    ) -> Sequence[SharedChannels]:
        """Return what parameters share, by running the model once.

        Args:
            model: the model, of which nothing may change.
            example_inputs: a tensor, a tuple or list of arguments, or a mapping of keyword
                arguments, on the model's device.
            parameters: full names of the parameters to place.

        Returns:
            Groups that hold each of the parameters once; a parameter that shares its channels with
            no other is a group of its own.

        Raises:
            PlanError: the model cannot be traced, or parameters share channels in a way that
                ``SharedChannels`` cannot say; names the module or the operation.
        """
        ...
