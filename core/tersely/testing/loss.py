"""The contract of distillation losses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import attrs
import torch
from torch import Tensor

from tersely.json_value import Json
from tersely.testing.contract import Contract, Kind, expect, require

# Losses that compare samples with each other say nothing about a batch of two.
_SHAPES = ((4, 10), (4, 5, 8), (4, 4, 6, 6))


@attrs.define(eq=False)
class LossContract(Contract):
    """What every distillation loss must meet."""

    kind: ClassVar[Kind] = "losses"

    def loss(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the loss of one pair.

        Args:
            student: any shape, float.
            teacher: the student's shape, float.
        """
        found = self.catalog[self.name](student, teacher, **self.arguments)
        expect(isinstance(found, Tensor), f"it returned a {type(found).__name__}, not a tensor")
        return found  # type: ignore[return-value]  # checked above

    def check_scalar(self) -> None:
        """The loss is a finite 0-dim float tensor."""
        for shape in _SHAPES:
            found = self.loss(*_pair(shape))
            expect(found.ndim == 0, f"shape {shape}: the loss has shape {tuple(found.shape)}")
            expect(found.is_floating_point(), f"shape {shape}: the loss is {found.dtype}")
            expect(bool(found.isfinite()), f"shape {shape}: the loss is {float(found)}")

    def check_gradient(self) -> None:
        """The student gets a finite gradient that is not zero everywhere."""
        for shape in _SHAPES:
            student, teacher = _pair(shape)
            student.requires_grad_()
            found = self.loss(student, teacher)
            expect(found.requires_grad, f"shape {shape}: the loss does not depend on the student")
            (gradient,) = torch.autograd.grad(found.sum(), student)
            expect(bool(gradient.isfinite().all()), f"shape {shape}: the gradient is not finite")
            expect(bool(gradient.any()), f"shape {shape}: the gradient is zero")

    def check_inputs_untouched(self) -> None:
        """Student and teacher tensors are not modified."""
        for shape in _SHAPES:
            student, teacher = _pair(shape)
            self.loss(student, teacher)
            fresh_student, fresh_teacher = _pair(shape)
            expect(torch.equal(student, fresh_student), f"shape {shape}: student was written to")
            expect(torch.equal(teacher, fresh_teacher), f"shape {shape}: teacher was written to")

    def check_determinism(self) -> None:
        """The same pair gives the same loss."""
        for shape in _SHAPES:
            same = torch.equal(self.loss(*_pair(shape)), self.loss(*_pair(shape)))
            expect(same, f"shape {shape}: two calls differ")


def _pair(shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(shape, generator=generator), torch.randn(shape, generator=generator)


def check_loss(name: str, *, options: Mapping[str, Json] | None = None) -> None:
    """Run the whole contract of a distillation loss.

    Args:
        name: its name in the registry.
        options: options to call it with.

    Raises:
        ContractError: lists every check that failed.
        PluginError: nobody provides the name.
    """
    require(LossContract(name, options or {}))
