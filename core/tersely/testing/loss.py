"""The contract of distillation losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import attrs
import torch
from torch import Tensor

from tersely.distillation.calling import batch_parts
from tersely.json_value import Json
from tersely.registry.registry import registry
from tersely.testing.contract import Contract, Kind, expect, require
from tersely.testing.random_state import untouched_random_state

# Losses that compare samples with each other say nothing about a batch of two.
_SAMPLES = 4
_SHAPES = ((_SAMPLES, 10), (_SAMPLES, 5, 8), (_SAMPLES, 4, 6, 6))


@attrs.define(eq=False)
class LossContract(Contract):
    """What every distillation loss must meet."""

    kind: ClassVar[Kind] = "losses"

    def loss(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the loss of one pair.

        A loss of the student alone gets no teacher. Each part of a batch that a loss asks for is
        the numbers 0 to 3, over and over, one for each sample: indices of samples, or labels.

        Args:
            student: any shape, float.
            teacher: the student's shape, float.
        """
        info = registry().losses.info(self.name)
        numbers = torch.arange(len(student)) % _SAMPLES
        given = dict.fromkeys(batch_parts(info, self.arguments), numbers)
        found = self.catalog[self.name](
            student,
            teacher if info.needs == "teacher" else None,
            **{**self.arguments, **given},
        )
        expect(isinstance(found, Tensor), f"it returned a {type(found).__name__}, not a tensor")
        return found  # type: ignore[return-value]  # checked above

    @property
    def shapes(self) -> Sequence[tuple[int, ...]]:
        """The shapes that the loss can compare: it refuses others by a ValueError."""
        found, refusal = [], ""
        for shape in _SHAPES:
            try:
                self.loss(*_pair(shape))
            except ValueError as error:
                refusal = str(error)
            else:
                found.append(shape)
        expect(bool(found), f"it refuses every shape of {_SHAPES}: {refusal}")
        return found

    def check_named_options(self) -> None:
        """Options that name an input of the model or a part of the batch are among the options."""
        info = registry().losses.info(self.name)
        known = info.options.get("properties", {})
        for field in ("input_options", "batch_options"):
            unknown = [name for name in getattr(info, field) if name not in known]
            expect(not unknown, f"{field} has {unknown}, which options does not describe")

    def make_example(self) -> None:
        """Call the loss with the options: it has no object of its own."""
        self.loss(*_pair(self.shapes[0]))

    def check_scalar(self) -> None:
        """The loss is a finite 0-dim float tensor."""
        for shape in self.shapes:
            found = self.loss(*_pair(shape))
            expect(found.ndim == 0, f"shape {shape}: the loss has shape {tuple(found.shape)}")
            expect(found.is_floating_point(), f"shape {shape}: the loss is {found.dtype}")
            expect(bool(found.isfinite()), f"shape {shape}: the loss is {float(found)}")

    def check_gradient(self) -> None:
        """The student gets a finite gradient that is not zero everywhere."""
        for shape in self.shapes:
            student, teacher = _pair(shape)
            student.requires_grad_()
            found = self.loss(student, teacher)
            expect(found.requires_grad, f"shape {shape}: the loss does not depend on the student")
            (gradient,) = torch.autograd.grad(found.sum(), student)
            expect(bool(gradient.isfinite().all()), f"shape {shape}: the gradient is not finite")
            expect(bool(gradient.any()), f"shape {shape}: the gradient is zero")

    def check_inputs_untouched(self) -> None:
        """Student and teacher tensors are not modified."""
        for shape in self.shapes:
            student, teacher = _pair(shape)
            self.loss(student, teacher)
            fresh_student, fresh_teacher = _pair(shape)
            expect(torch.equal(student, fresh_student), f"shape {shape}: student was written to")
            expect(torch.equal(teacher, fresh_teacher), f"shape {shape}: teacher was written to")

    def check_determinism(self) -> None:
        """The same pair gives the same loss, and leaves the global random state alone."""
        for shape in self.shapes:
            with untouched_random_state():
                first = self.loss(*_pair(shape))
            expect(torch.equal(first, self.loss(*_pair(shape))), f"shape {shape}: two calls differ")

    def check_equal_pair(self) -> None:
        """A student that equals its teacher gets a finite loss and a finite gradient."""
        for shape in self.shapes:
            teacher = _pair(shape)[1]
            self._expect_finite(teacher.clone(), teacher, f"shape {shape}, student = teacher")

    def check_zeros(self) -> None:
        """Features that are zero for one sample, or everywhere, give finite results."""
        for shape in self.shapes:
            student, teacher = _pair(shape)
            student[0], teacher[0] = 0, 0
            self._expect_finite(student, teacher, f"shape {shape}, a sample of zeros")
            zeros = torch.zeros(shape)
            self._expect_finite(zeros, teacher, f"shape {shape}, a student of zeros")

    def check_half_precision(self) -> None:
        """Pairs in bfloat16 and float16 give finite results."""
        for dtype in (torch.bfloat16, torch.float16):
            for shape in self.shapes:
                student, teacher = (each.to(dtype) for each in _pair(shape))
                self._expect_finite(student, teacher, f"shape {shape} in {dtype}")

    def check_batch_size(self) -> None:
        """The loss does not grow with the batch, so that a lambda keeps its meaning."""
        for shape in self.shapes:
            student, teacher = _pair(shape)
            once = float(self.loss(student, teacher))
            repeated = self.loss(torch.cat([student] * 4), torch.cat([teacher] * 4))
            expect(
                float(repeated) < 2 * once,
                f"shape {shape}: a batch four times as long has {float(repeated) / once:.3g} times "
                f"the loss; take the mean over samples",
            )

    def _expect_finite(self, student: Tensor, teacher: Tensor, where: str) -> None:
        student.requires_grad_()
        found = self.loss(student, teacher)
        expect(bool(found.isfinite().all()), f"{where}: the loss is {found.tolist()}")
        if found.requires_grad:
            (gradient,) = torch.autograd.grad(found.sum(), student)
            expect(bool(gradient.isfinite().all()), f"{where}: the gradient is not finite")


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
