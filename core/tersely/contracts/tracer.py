"""What a dependency tracer implements: which parameters share output channels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import attrs
from torch import nn


@attrs.frozen(kw_only=True)
class SharedChannels:
    """Parameters that make the same output channels, as on both sides of an addition.

    Attributes:
        parameters: their full names; output channel i of each is removed together with output
            channel i of all.
        runs: equal runs of the channels that have to lose equally many, as for the groups of a
            convolution or the heads of an attention.
        is_tied_to_itself: whether different channels of one parameter also go together, as in a
            packed projection of query, key and value.
    """

    parameters: tuple[str, ...]
    runs: int = 1
    is_tied_to_itself: bool = False


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
