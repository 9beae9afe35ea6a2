"""The engines of a session, in the order in which they act on one tensor (rule O1)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import attrs

from tersely.distillation.engine import Distillation
from tersely.distillation.teacher import need_teacher
from tersely.engine.context import Context
from tersely.engine.protocol import Engine
from tersely.pruning.engine import Pruning
from tersely.quantization.engine import Quantization


@attrs.frozen(eq=False)
class Engines:
    """All engines of a session, to loop over.

    They are addressed by name for what only one of them has: masks that the user edits, and the
    teacher's targets.

    Attributes:
        pruning: what masks.
        quantization: what rounds.
        distillation: what compares with the teacher.
    """

    pruning: Pruning
    quantization: Quantization
    distillation: Distillation

    def __iter__(self) -> Iterator[Engine[Any]]:
        yield self.pruning
        yield self.quantization
        yield self.distillation

    @property
    def all(self) -> tuple[Engine[Any], ...]:
        """The engines in their order."""
        return tuple(self)


def make_engines(context: Context) -> Engines:
    """Make the engines of a plan; the model is not touched.

    Args:
        context: what they share.

    Raises:
        BrokenPluginError: a plugin cannot be imported.
        PluginError: an algorithm cannot be made with its options.
        PlanError: a stage asks its algorithm for something that it cannot do.
        AttachError: the teacher is the student.
    """
    pruning, quantization = Pruning(context), Quantization(context)
    need_teacher(context.binding.plan.targets, context.teacher, context.model)
    return Engines(pruning, quantization, Distillation(context))
