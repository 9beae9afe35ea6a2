"""One student target with the teacher's targets it is linked to, and the loss between them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import cast

import attrs
import torch
from torch import Tensor, nn

from tersely.contracts.target_plan import TargetPlan
from tersely.distillation.projection import Projections
from tersely.document.recipe import Stage
from tersely.engine.binding import BoundTarget
from tersely.errors import PluginError, SessionError, TerselyError
from tersely.instrument.tapping import Tap
from tersely.json_value import Json
from tersely.registry.registry import registry

Loss = Callable[..., Tensor]


@attrs.frozen(eq=False)
class Pair:
    """A student target and what it learns from.

    Attributes:
        bound: the student's target.
        student: the student's tap.
        teachers: link -> the tap of the same target in that module of the teacher.
        weight: lambda, what its loss is multiplied with.
        loss: the loss.
        options: the loss's options.
        projected_dim: the dimension in which a learned linear map leads from the student's width to
            the teacher's, or None.
        inputs: option of the loss -> the tap of the model's input that it names.
        stage: the stage it belongs to, which may be active for a part of the training only.
    """

    bound: BoundTarget
    student: Tap
    teachers: Mapping[str, Tap]
    weight: float
    loss: Loss
    options: Mapping[str, Json]
    projected_dim: int | None
    stage: Stage
    inputs: Mapping[str, Tap] = attrs.field(factory=dict)

    @property
    def plan(self) -> TargetPlan:
        """What the config says of the student's target."""
        return self.bound.plan

    def teacher_name(self, link: str) -> str:
        """Return the full name of a teacher's target."""
        return f"{link}.{self.plan.target}" if link else self.plan.target

    @property
    def links(self) -> dict[str, str]:
        """``student target>link``, by which maps and cached targets are known -> the link."""
        return {f"{self.plan.name}>{link}": link for link in self.teachers}

    def missing(self) -> str | None:
        """Return which side was not seen since the last loss, with the likely reason, or None."""
        if self.student.value is None:
            return self.student.problem or (
                f"{self.plan.name} of the student was not seen since the last loss: run the model "
                f"with gradients enabled, and by calling it, before session.loss(); a branch that "
                f"does not run in every step cannot be distilled"
            )
        for link, tap in self.teachers.items():
            if tap.value is None:
                return tap.problem or (
                    f"{self.teacher_name(link)} of the teacher was not seen since the last loss: "
                    f"call session.teacher_forward(...) with the same batch before session.loss()"
                )
        for option, tap in self.inputs.items():
            if tap.value is None:
                return (
                    f"{self.plan.name} has option {option!r} of {self.plan.algorithm}, and the "
                    f"model was not called with {self.options[option]!r} since the last loss; pass "
                    f"it, or leave the option out"
                )
        return None

    def compute(self, projections: Projections) -> Tensor:
        """Return lambda times the smallest loss over all links, and forget the values.

        Args:
            projections: the learned maps.

        Raises:
            SessionError: the tensors do not go together; names both.
            PluginError: the loss failed or returned something else than a scalar.
        """
        given = {option: tap.take() for option, tap in self.inputs.items()}
        student = self.student.take()
        assert student is not None  # the caller has checked what is missing
        losses = [
            self._one(student, tap.take(), link, projections=projections, given=given)
            for link, tap in self.teachers.items()
        ]
        smallest = losses[0] if len(losses) == 1 else torch.stack(losses).amin()
        return smallest * self.weight

    def _one(
        self,
        student: Tensor,
        teacher: Tensor | None,
        link: str,
        *,
        projections: Projections,
        given: Mapping[str, Tensor | None],
    ) -> Tensor:
        assert teacher is not None  # the caller has checked what is missing
        teacher = teacher.to(student.device)
        if self.projected_dim is not None:
            student = projections.apply(
                self.plan.name, link, student, teacher, dim=self.projected_dim
            )
        name, where = self.plan.algorithm, self._names(link)
        try:
            found: object = self.loss(student, teacher, **{**self.options, **given})
        except TerselyError:
            raise
        except ValueError as error:
            raise SessionError(f"{where}: {error}", **self.plan.place) from error
        except Exception as error:  # foreign code: whatever it raises belongs in the message
            shapes = f"shapes {tuple(student.shape)} and {tuple(teacher.shape)}"
            raise PluginError(
                f"the loss {name} failed on {where}, {shapes}: {type(error).__name__}: {error}",
                plugin=name,
                target=self.plan.name,
            ) from error
        if not isinstance(found, Tensor) or found.ndim:
            shape = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise PluginError(
                f"the loss {name} returned {shape} for {where}; expected a 0-dim tensor",
                plugin=name,
                target=self.plan.name,
            )
        return found

    def _names(self, link: str) -> str:
        return f"{self.plan.name} of the student and {self.teacher_name(link)} of the teacher"


def loss_of(plan: TargetPlan) -> Loss:
    """Return a target's loss.

    Args:
        plan: a distillation target.
    """
    return cast("Loss", registry().losses[plan.distillation.loss])


def module_of(teacher: nn.Module, link: str, plan: TargetPlan) -> nn.Module:
    """Return the teacher's module that a target is linked to.

    Args:
        teacher: the teacher.
        link: the module's name.
        plan: the student's target.

    Raises:
        SessionError: there is no such module.
    """
    found: dict[str, nn.Module] = dict(teacher.named_modules(remove_duplicate=False))
    if link in found:
        return found[link]
    raise SessionError(
        f"{plan.name} is linked to {link!r}, which is no module of the teacher", **plan.place
    )
