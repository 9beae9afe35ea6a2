"""Everything that distillation learns: maps between widths, and losses with state of their own."""

from __future__ import annotations

import attrs
from torch import Tensor

from tersely.contracts.loss import StatefulLoss
from tersely.distillation.calling import AskedLoss
from tersely.distillation.projection import Projections
from tersely.distillation.states import LossStates, follow, shape_of


@attrs.frozen(eq=False)
class Learning:
    """What a session's losses learn; one optimizer, that of the projections, moves all of it.

    Attributes:
        projections: the learned maps.
        states: the losses with state.
    """

    projections: Projections = attrs.field(factory=Projections)
    states: LossStates = attrs.field(factory=LossStates)

    def loss(
        self, key: str, loss: AskedLoss, student: Tensor, teacher: Tensor | None
    ) -> StatefulLoss:
        """Return the object of a loss with state, made where there is none yet.

        Args:
            key: ``target>link``, or the target alone.
            loss: the loss, as the config asks for it.
            student: the student's values.
            teacher: the teacher's, or None.

        Raises:
            PluginError: it cannot be made for these shapes.
        """
        module = self.states.modules.get(key)
        if module is None:
            shapes = (shape_of(student), shape_of(teacher))
            module = self.states.add(key, loss, shapes, student.device)
            self.projections.move([leaf for leaf in module.parameters() if leaf.requires_grad])
        follow(module, student.device, self.projections.optimizer)
        return module

    def learned(self) -> dict[tuple[str, str], Tensor]:
        """Return everything that is learned, by key and part: maps first, then losses."""
        return {**self.projections.learned(), **self.states.learned()}

    def hand_over(self) -> list[Tensor]:
        """Return everything that is learned; from now on the user's optimizer moves it."""
        self.projections.hand_over()
        return list(self.learned().values())
