"""Student targets with the teacher's targets they are linked to, and the loss between them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import attrs
import torch
from torch import Tensor

from tersely.contracts.target_plan import TargetPlan
from tersely.distillation.calling import AskedLoss
from tersely.distillation.learning import Learning, Values
from tersely.distillation.teacher import teacher_name
from tersely.document.recipe import Stage
from tersely.engine.targets.binding import BoundTarget
from tersely.instrument.tapping import Tap


@attrs.frozen(eq=False)
class Side:
    """One student target with its tap, and the taps of the teacher it is linked to.

    Attributes:
        bound: the student's target.
        student: the student's tap.
        teachers: link -> the tap of the same target in that module of the teacher; empty where the
            loss needs no teacher.
    """

    bound: BoundTarget
    student: Tap
    teachers: Mapping[str, Tap]

    @property
    def plan(self) -> TargetPlan:
        """What the config says of the student's target."""
        return self.bound.plan

    def teacher_name(self, link: str) -> str:
        """Return the full name of a teacher's target."""
        return teacher_name(self.plan, link)


@attrs.frozen(eq=False)
class Pair:
    """What one call of a loss compares: a student target, or several, and what they learn from.

    Attributes:
        sides: the student's targets; several only where the loss takes them together.
        weight: lambda, what the loss is multiplied with.
        loss: the loss, as the config asks for it.
        projected_dim: the dimension in which a learned linear map leads from the student's width to
            the teacher's, or None.
        inputs: option of the loss -> the tap of the model's input that it names.
        stage: the stage it belongs to, which may be active for a part of the training only.
    """

    sides: tuple[Side, ...]
    weight: float
    loss: AskedLoss
    projected_dim: int | None
    stage: Stage
    inputs: Mapping[str, Tap] = attrs.field(factory=dict)

    @property
    def plan(self) -> TargetPlan:
        """What the config says of the first student target."""
        return self.sides[0].plan

    @property
    def needs_teacher(self) -> bool:
        """Whether the loss compares with the teacher."""
        return self.loss.needs_teacher

    def taps(self) -> Iterator[Tap]:
        """Yield every tap of both models."""
        for side in self.sides:
            yield from (side.student, *side.teachers.values())
        yield from self.inputs.values()

    def missing(self, *, has_teacher: bool) -> str | None:
        """Return which side was not seen since the last loss, with the likely reason, or None.

        Args:
            has_teacher: whether the session has a teacher.
        """
        for side in self.sides:
            found = self._missing_of(side, has_teacher=has_teacher)
            if found is not None:
                return found
        for option, tap in self.inputs.items():
            if tap.value is None:
                return (
                    f"{self.plan.name} has option {option!r} of {self.plan.algorithm}, and the "
                    f"model was not called with {self.loss.options[option]!r} since the last loss; "
                    "pass it, or leave the option out"
                )
        return None

    def _missing_of(self, side: Side, *, has_teacher: bool) -> str | None:
        name = side.plan.name
        if side.student.value is None:
            return side.student.problem or (
                f"{name} of the student was not seen since the last loss: run the model "
                "with gradients enabled, and by calling it, before session.loss(); in activation "
                "checkpointing write use_reentrant=False, since with True parts run without "
                "gradients; a branch that does not run in every step cannot be distilled"
            )
        for link, tap in side.teachers.items():
            if tap.value is not None:
                continue
            if not has_teacher:
                return (
                    f"{name} learns by {side.plan.algorithm}, which compares it with "
                    f"{side.teacher_name(link)} of a teacher, and the session has no teacher: give "
                    "it to tersely.attach(..., teacher=...), or call session.teacher_batch(...) "
                    "with a cache of its targets"
                )
            return tap.problem or (
                f"{side.teacher_name(link)} of the teacher was not seen since the last loss: "
                "call session.teacher_forward(...) with the same batch before session.loss()"
            )
        return None

    @property
    def state_names(self) -> tuple[str, ...]:
        """What the state of its loss is called: ``target>link``, or the target alone."""
        if self.loss.is_joined:
            return (self._joined_name,)
        (side,) = self.sides
        return tuple(f"{side.plan.name}>{link}" for link in side.teachers) or (side.plan.name,)

    @property
    def _joined_name(self) -> str:
        names = "&".join(side.plan.name for side in self.sides)
        links = "&".join(link for side in self.sides for link in side.teachers)
        return f"{names}>{links}" if self.needs_teacher else names

    def compute(self, learning: Learning, batch: object) -> Tensor:
        """Return lambda times the smallest loss over all links, and forget the values.

        Args:
            learning: the learned maps, and the losses with state.
            batch: what the loss was given as the batch, or None.

        Raises:
            SessionError: the tensors do not go together, or the batch lacks what the loss needs;
                names both.
            PluginError: the loss failed or returned something else than a scalar.
        """
        given: dict[str, object] = {option: tap.take() for option, tap in self.inputs.items()}
        if self.loss.is_joined:
            return self._joined(given, learning, batch) * self.weight
        (side,) = self.sides
        student = side.student.take()
        assert student is not None  # the caller has checked what is missing
        given |= self.loss.parts_of(batch, self.plan, student.device)
        if not side.teachers:
            found = [self._called(student, None, given, key=side.plan.name, learning=learning)]
        else:
            found = [
                self._compared(side, student, link, learning=learning, given=given)
                for link in side.teachers
            ]
        smallest = found[0] if len(found) == 1 else torch.stack(found).amin()
        return smallest * self.weight

    def _joined(self, given: dict[str, object], learning: Learning, batch: object) -> Tensor:
        students = _taken(side.student for side in self.sides)
        device = students[0].device
        given |= self.loss.parts_of(batch, self.plan, device)
        teachers: tuple[Tensor, ...] | None = None
        where = ", ".join(side.plan.name for side in self.sides)
        if self.needs_teacher:
            taken = _taken(tap for side in self.sides for tap in side.teachers.values())
            teachers = tuple(one.to(device) for one in taken)
            theirs = (side.teacher_name(link) for side in self.sides for link in side.teachers)
            where = f"{where} of the student and {', '.join(theirs)} of the teacher"
        key = self._joined_name
        return self._called(students, teachers, given, key=key, learning=learning, where=where)

    def _compared(
        self,
        side: Side,
        student: Tensor,
        link: str,
        *,
        learning: Learning,
        given: Mapping[str, object],
    ) -> Tensor:
        teacher = side.teachers[link].take()
        assert teacher is not None  # the caller has checked what is missing
        teacher = teacher.to(student.device)
        if self.projected_dim is not None:
            student = learning.projections.apply(
                side.plan.name, link, student, teacher, dim=self.projected_dim
            )
        where = f"{side.plan.name} of the student and {side.teacher_name(link)} of the teacher"
        key = f"{side.plan.name}>{link}"
        return self._called(student, teacher, given, key=key, learning=learning, where=where)

    def _called(
        self,
        student: Values,
        teacher: Values | None,
        given: Mapping[str, object],
        *,
        key: str,
        learning: Learning,
        where: str | None = None,
    ) -> Tensor:
        module = None
        if self.loss.is_stateful:
            module = learning.loss(key, self.loss, student, teacher)
        where = where or self.plan.name
        return self.loss(student, teacher, given, plan=self.plan, where=where, module=module)


def _taken(taps: Iterable[Tap]) -> tuple[Tensor, ...]:
    values = tuple(tap.take() for tap in taps)
    assert all(value is not None for value in values)  # the caller has checked what is missing
    return tuple(value for value in values if value is not None)


def links_of(pairs: Sequence[Pair]) -> Iterator[tuple[Side, str, Tap]]:
    """Yield every target of the teacher that some pairs compare with, and its tap.

    Args:
        pairs: the pairs.
    """
    for pair in pairs:
        for side in pair.sides:
            for link, tap in side.teachers.items():
                yield side, link, tap
