"""Taps: what flows through an input or output is remembered until the loss has used it."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from tersely.instrument.modules.recomputation import is_recomputing
from tersely.instrument.names import TAP


class Tap:
    """Remembers the last value of one target; mutable, because that is what it is for.

    What it remembers of an input or output is a copy: whatever writes into the tensor later (an
    activation in place, an addition to a residual, an assignment to a slice) does not change it. A
    forward that runs again inside backward, as activation checkpointing does, fills no tap.
    Copies and pickles of a model come without the value: it may hold a graph.

    Attributes:
        value: the last value, or None before the first and after it was taken.
        keeps_graph: whether values are kept for backward; the teacher's are detached.
        is_copying: whether what is remembered is a copy; a parameter is read when the loss needs it
            and has to be none.
        problem: why the last forward could not be remembered, or None.
    """

    place: ClassVar[int] = TAP

    def __init__(self, *, keeps_graph: bool, is_copying: bool = True) -> None:
        self.value: Tensor | None = None
        self.keeps_graph = keeps_graph
        self.is_copying = is_copying
        self.problem: str | None = None

    def __call__(self, module: nn.Module, value: Tensor) -> Tensor:
        """Remember a value and return it unchanged."""
        if is_recomputing():
            return value
        self.problem = None
        # Evaluation of the student in between asks for no loss, so nothing of it is kept.
        if not self.keeps_graph or torch.is_grad_enabled():
            seen = value if self.keeps_graph else value.detach()
            self.value = seen.clone() if self.is_copying else seen
        return value

    def refuse(self, problem: str) -> None:
        """Remember why a forward has no value for this tap; `problem` is for the loss to report.

        Args:
            problem: a sentence for the user.
        """
        if not is_recomputing():
            self.value, self.problem = None, problem

    def take(self) -> Tensor | None:
        """Return the value and forget it."""
        value, self.value, self.problem = self.value, None, None
        return value

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "value": None, "problem": None}

    def __deepcopy__(self, memo: dict[int, Any]) -> Tap:
        return Tap(keeps_graph=self.keeps_graph, is_copying=self.is_copying)
