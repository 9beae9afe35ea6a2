"""The contract of distillation losses."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from functools import partial
from typing import ClassVar, cast

import attrs
import torch
from torch import Tensor, nn

from tersely.distillation.calling import AskedLoss, Loss, batch_parts
from tersely.distillation.states import built, shape_of
from tersely.errors import PluginError
from tersely.json_value import Json
from tersely.registry.registry import registry
from tersely.testing.contract import Contract, Kind, expect, require
from tersely.testing.random_state import untouched_random_state

# Losses that compare samples with each other say nothing about a batch of two.
_SAMPLES = 4
_TARGETS = 3  # of a loss that takes any number of them
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
        return self._call(self._fresh(student, teacher), student, teacher)

    @property
    def _asked(self) -> AskedLoss:
        info = registry().losses.info(self.name)
        parts = batch_parts(info, self.arguments)
        return AskedLoss(cast("Loss", self.catalog[self.name]), info, self.arguments, parts)

    def _fresh(self, student: Tensor, teacher: Tensor) -> Loss:
        asked = self._asked
        if not asked.is_stateful:
            return partial(asked.function, **self.arguments)
        theirs = teacher if asked.needs_teacher else None
        try:
            shapes = (shape_of(self._values(student)), shape_of(self._values(theirs)))
            return built("contract", asked, shapes)
        except PluginError as error:
            if isinstance(error.__cause__, ValueError):
                raise error.__cause__ from None  # a shape that it refuses
            raise

    def _values(self, values: Tensor | None) -> object:
        # Of several targets each has the values in another order of the samples' features.
        count = registry().losses.info(self.name).targets
        if count == 1 or values is None:
            return values
        return tuple(values.roll(place, 1) for place in range(_TARGETS if count is None else count))

    def _call(self, loss: Loss, student: Tensor, teacher: Tensor) -> Tensor:
        asked = self._asked
        given = dict.fromkeys(asked.parts, torch.arange(len(student)) % _SAMPLES)
        theirs = teacher if asked.needs_teacher else None
        found: object = loss(self._values(student), self._values(theirs), **given)
        expect(isinstance(found, Tensor), f"it returned a {type(found).__name__}, not a tensor")
        return cast("Tensor", found)

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
        """Check the loss and its gradient with the options."""
        self.check_scalar()
        self.check_gradient()

    def check_state(self) -> None:
        """What a loss remembers is saved with the session, and holds no graph."""
        for shape in self.shapes:
            one, other = _pair(shape), _pair(shape, seed=1)
            for student, _ in (one, other):
                student.requires_grad_()  # so that what is kept of it shows a graph
            loss = self._fresh(*one)
            first = self._call(loss, *one)
            if not isinstance(loss, nn.Module):
                self._call(loss, *other)
                expect(
                    torch.equal(self._call(loss, *one), first),
                    f"shape {shape}: it remembers what it was called with, which no session saves; "
                    f"inherit from tersely.contracts.StatefulLoss and keep it in buffers",
                )
                continue
            state = copy.deepcopy(loss.state_dict())
            twin = self._fresh(*one)
            cast("nn.Module", twin).load_state_dict(state)
            expect(
                torch.equal(self._call(loss, *other), self._call(twin, *other)),
                f"shape {shape}: after it was saved and loaded it has another loss; keep what it "
                f"remembers in buffers",
            )
            held = [name for name, buffer in loss.named_buffers() if buffer.requires_grad]
            expect(not held, f"shape {shape}: buffers {held} hold a graph; detach what is kept")

    def check_learning(self) -> None:
        """Every parameter that a loss learns gets a finite gradient."""
        for shape in self.shapes:
            student, teacher = _pair(shape)
            loss = self._fresh(student, teacher)
            if not isinstance(loss, nn.Module):
                continue
            torch.autograd.backward(self._call(loss, student, teacher))
            for name, leaf in loss.named_parameters():
                is_reached = leaf.grad is not None and bool(leaf.grad.isfinite().all())
                expect(
                    is_reached or not leaf.requires_grad,
                    f"shape {shape}: {name!r} gets no finite gradient",
                )

    def check_scalar(self) -> None:
        """The loss is a finite 0-dim float tensor."""
        for shape in self.shapes:
            found = self.loss(*_pair(shape))
            expect(found.ndim == 0, f"shape {shape}: the loss has shape {tuple(found.shape)}")
            expect(found.is_floating_point(), f"shape {shape}: the loss is {found.dtype}")
            expect(bool(found.isfinite()), f"shape {shape}: the loss is {found.item()}")

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

    def check_teacher(self) -> None:
        """Another teacher makes another loss, where the loss compares with one."""
        if not self._asked.needs_teacher:
            return
        for shape in self.shapes:
            student, teacher = _pair(shape)
            found = [self.loss(student, one) for one in (teacher, _pair(shape, seed=1)[1])]
            expect(
                not torch.equal(*found),
                f"shape {shape}: two teachers give the same loss; does it keep the first one?",
            )

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
            once = self.loss(student, teacher).item()
            longer = torch.cat([student] * 4), torch.cat([teacher] * 4)
            repeated = self.loss(*longer).item()
            expect(
                abs(repeated) < 2 * abs(once),
                f"shape {shape}: a batch four times as long has {repeated / once:.3g} times "
                f"the loss; take the mean over samples",
            )

    def _expect_finite(self, student: Tensor, teacher: Tensor, where: str) -> None:
        student.requires_grad_()
        found = self.loss(student, teacher)
        expect(bool(found.isfinite().all()), f"{where}: the loss is {found.tolist()}")
        if found.requires_grad:
            (gradient,) = torch.autograd.grad(found.sum(), student)
            expect(bool(gradient.isfinite().all()), f"{where}: the gradient is not finite")


def _pair(shape: tuple[int, ...], *, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
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
