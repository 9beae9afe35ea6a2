"""Taps: what flows through an input or output is remembered until the loss has used it."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from tersely.instrument.names import TAP


class Tap:
    """Remembers the last value of one target; mutable, because that is what it is for.

    Copies and pickles of a model come without the value: it may hold a graph.

    Attributes:
        value: the last value, or None before the first and after it was taken.
        keeps_graph: whether values are kept for backward; the teacher's are detached.
    """

    place: ClassVar[int] = TAP

    def __init__(self, *, keeps_graph: bool) -> None:
        self.value: Tensor | None = None
        self.keeps_graph = keeps_graph

    def __call__(self, module: nn.Module, value: Tensor) -> Tensor:
        """Remember a value and return it unchanged."""
        if not self.keeps_graph:
            self.value = value.detach()
        elif torch.is_grad_enabled():
            # Evaluation in between asks for no loss, so nothing of it is kept.
            self.value = value
        return value

    def take(self) -> Tensor | None:
        """Return the value and forget it."""
        value, self.value = self.value, None
        return value

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "value": None}

    def __deepcopy__(self, memo: dict[int, Any]) -> Tap:
        return Tap(keeps_graph=self.keeps_graph)
