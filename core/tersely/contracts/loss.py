"""Distillation losses that are modules with state of their own."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from torch import Tensor, nn

from tersely.contracts.abilities import Ability


class StatefulLoss(Ability, nn.Module):
    """A loss that is a `torch.nn.Module`: its parameters are learned, and its buffers are kept.

    The core makes one object for each target and link of an entry, with the options as keyword
    arguments, when the first batch shows the shapes. Parameters are in ``session.parameters()`` and
    ``session.learned()``, and `Session.step` moves them unless your optimizer does; parameters and
    buffers are saved with the session and follow the student's device. State that is kept anywhere
    else is lost when a session is saved.
    """

    def build(self, student: tuple[Any, ...], teacher: tuple[Any, ...] | None) -> None:
        """Make the parameters and buffers whose sizes depend on the targets; none by default.

        Called once, before anything is computed, also when a saved session is loaded. Random
        numbers are seeded by the target's name, and the user's generators are not touched.

        Args:
            student: the shape of the student's values, the batch first; a tuple of shapes if the
                loss takes several targets.
            teacher: the shape of the teacher's values, or None for a loss of the student alone.
        """

    @abstractmethod
    def forward(self, student: Any, teacher: Any, **named: Any) -> Tensor:
        """Return the loss, 0-dim.

        Args:
            student: the student's values, any shape, float.
            teacher: the teacher's values, detached, or None.
            **named: the tensors that ``input_options`` and ``batch_options`` of the descriptor
                name.
        """
