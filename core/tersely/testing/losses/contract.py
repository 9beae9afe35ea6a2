"""The contract of distillation losses."""

from __future__ import annotations

import copy
import gc
import weakref
from collections.abc import Mapping
from typing import ClassVar, cast

import attrs
import torch
from torch import Tensor, nn

from tersely.json_value import Json
from tersely.registry.registry import registry
from tersely.testing.contract import Kind, expect, require
from tersely.testing.losses.calls import LossCalls, pair_of
from tersely.testing.models import other_layout
from tersely.testing.tensors import expect_gradients, unwritten
from tersely.testing.untouched.random_state import untouched_random_state


@attrs.define(eq=False)
class LossContract(LossCalls):
    """What every distillation loss must meet."""

    kind: ClassVar[Kind] = "losses"

    def check_named_options(self) -> None:
        """Options that name model inputs or parts of the batch exist in the options schema."""
        info = registry().losses.info(self.name)
        known = info.options.get("properties", {})
        for field in ("input_options", "batch_options"):
            unknown = [name for name in getattr(info, field) if name not in known]
            expect(
                not unknown,
                f"{field} has {unknown}, which are not properties of the options schema",
            )

    def make_example(self) -> None:
        """Compute the loss and its gradient with the options."""
        self.check_scalar()
        self.check_gradient()

    def use(self) -> None:
        """Compute the loss of one pair of each shape."""
        for shape in self.shapes:
            self.loss(*pair_of(shape))

    def check_state(self) -> None:
        """The state of a loss is saved with the session and holds no graph."""
        for shape in self.shapes:
            one, other = pair_of(shape), pair_of(shape, seed=1)
            for student, _ in (one, other):
                student.requires_grad_()  # so that what is kept of it shows a graph
            loss = self.fresh(*one)
            first = self.call(loss, *one)
            if not isinstance(loss, nn.Module):
                self.call(loss, *other)
                expect(
                    torch.equal(self.call(loss, *one), first),
                    f"shape {shape}: it keeps state between calls, which a session does not save; "
                    "inherit from tersely.contracts.StatefulLoss and keep the state in buffers",
                )
                continue
            state = copy.deepcopy(loss.state_dict())
            twin = self.fresh(*one)
            cast("nn.Module", twin).load_state_dict(state)
            expect(
                torch.equal(self.call(loss, *other), self.call(twin, *other)),
                f"shape {shape}: its loss changes when it is saved and loaded; keep all of its "
                "state in buffers",
            )
            held = [name for name, buffer in loss.named_buffers() if buffer.requires_grad]
            expect(
                not held,
                f"shape {shape}: buffers {held} hold a graph; detach values before keeping them",
            )

    def check_learning(self) -> None:
        """Every parameter that a loss learns gets a finite gradient."""
        for shape in self.shapes:
            student, teacher = pair_of(shape)
            loss = self.fresh(student, teacher)
            if not isinstance(loss, nn.Module):
                continue
            torch.autograd.backward(self.call(loss, student, teacher))
            learned = {name: leaf for name, leaf in loss.named_parameters() if leaf.requires_grad}
            expect_gradients(learned, f"shape {shape}")

    def check_scalar(self) -> None:
        """The loss is a finite 0-dim float tensor."""
        for shape in self.shapes:
            found = self.loss(*pair_of(shape))
            expect(
                found.ndim == 0,
                f"shape {shape}: the loss has shape {tuple(found.shape)}, expected a 0-dim tensor",
            )
            expect(
                found.is_floating_point(),
                f"shape {shape}: the loss has dtype {found.dtype}, expected floats",
            )
            expect(bool(found.isfinite()), f"shape {shape}: the loss is {found.item()}")

    def check_gradient(self) -> None:
        """The student gets a finite gradient that is not zero everywhere."""
        for shape in self.shapes:
            student, teacher = pair_of(shape)
            student.requires_grad_()
            found = self.loss(student, teacher)
            expect(found.requires_grad, f"shape {shape}: the loss does not depend on the student")
            (gradient,) = torch.autograd.grad(found.sum(), student)
            expect(bool(gradient.isfinite().all()), f"shape {shape}: the gradient is not finite")
            expect(bool(gradient.any()), f"shape {shape}: the gradient is zero")

    def check_teacher(self) -> None:
        """A loss that compares with a teacher depends on the teacher."""
        if not self.asked.needs_teacher:
            return
        for shape in self.shapes:
            student, teacher = pair_of(shape)
            found = [self.loss(student, one) for one in (teacher, pair_of(shape, seed=1)[1])]
            expect(
                not torch.equal(*found),
                f"shape {shape}: two teachers give the same loss; does it keep the first one?",
            )

    def check_inputs_untouched(self) -> None:
        """Student and teacher tensors are not modified."""
        for shape in self.shapes:
            student, teacher = pair_of(shape)
            with (
                unwritten(student, f"shape {shape}: the student tensor"),
                unwritten(teacher, f"shape {shape}: the teacher tensor"),
            ):
                self.loss(student, teacher)

    def check_determinism(self) -> None:
        """The same pair gives the same loss and leaves the global random state unchanged."""
        for shape in self.shapes:
            with untouched_random_state():
                first = self.loss(*pair_of(shape))
            expect(
                torch.equal(first, self.loss(*pair_of(shape))),
                f"shape {shape}: two calls return different losses",
            )

    def check_equal_pair(self) -> None:
        """A student that equals its teacher gets a finite loss and a finite gradient."""
        for shape in self.shapes:
            teacher = pair_of(shape)[1]
            self._expect_finite(teacher.clone(), teacher, f"shape {shape}, student = teacher")

    def check_zeros(self) -> None:
        """Features that are zero for one sample or for all give finite results."""
        for shape in self.shapes:
            student, teacher = pair_of(shape)
            student[0], teacher[0] = 0, 0
            self._expect_finite(student, teacher, f"shape {shape}, a sample of zeros")
            zeros = torch.zeros(shape)
            self._expect_finite(zeros, teacher, f"shape {shape}, a student of zeros")

    def check_half_precision(self) -> None:
        """Pairs in bfloat16 and float16 give finite results."""
        for dtype in (torch.bfloat16, torch.float16):
            for shape in self.shapes:
                student, teacher = (each.to(dtype) for each in pair_of(shape))
                self._expect_finite(student, teacher, f"shape {shape} in {dtype}")

    def check_layout(self) -> None:
        """The memory layout of features does not change the loss."""
        for shape in self.shapes:
            student, teacher = pair_of(shape)
            turned = (other_layout(student), other_layout(teacher))
            one, other = self.loss(student, teacher), self.loss(*turned)
            same = torch.allclose(one, other, rtol=1e-3, atol=1e-5)
            expect(
                same,
                f"shape {shape}: the loss is {other.item()} with transposed memory, {one.item()} "
                "without",
            )

    def check_large(self) -> None:
        """Features a hundred times as large, as logits can be, give finite results."""
        for shape in self.shapes:
            student, teacher = (each * 100 for each in pair_of(shape))
            self._expect_finite(student, teacher, f"shape {shape}, a hundred times as large")

    def check_direction(self) -> None:
        """A student that equals its teacher has the lowest loss."""
        for shape in self.shapes:
            student, teacher = pair_of(shape)
            # Where labels count as well, the teacher need not be the best student.
            if not self.asked.needs_teacher or self.asked.is_stateful or self.asked.parts:
                return
            best, other = self.loss(teacher.clone(), teacher), self.loss(student, teacher)
            expect(
                bool(best <= other),
                f"shape {shape}: {best.item():.4g} for a student that equals its teacher, "
                f"{other.item():.4g} for another student; check its sign",
            )

    def check_memory(self) -> None:
        """No tensor of a batch is kept after the loss is released."""
        for shape in self.shapes:
            student, teacher = pair_of(shape)
            kept = weakref.ref(student.requires_grad_())
            loss = self.fresh(student, teacher)
            self.call(loss, student, teacher).detach()
            del student
            if kept() is not None:  # a cycle may hold it; collecting takes longer than the loss
                gc.collect()
            expect(kept() is None, f"shape {shape}: the student's features are kept after the call")

    def check_batch_size(self) -> None:
        """The loss does not grow with the batch size."""
        for shape in self.shapes:
            student, teacher = pair_of(shape)
            once = self.loss(student, teacher).item()
            longer = torch.cat([student] * 4), torch.cat([teacher] * 4)
            repeated = self.loss(*longer).item()
            expect(
                abs(repeated) < 2 * abs(once),
                f"shape {shape}: a batch four times as long has {repeated / once:.3g} times "
                "the loss; take the mean over samples",
            )

    def _expect_finite(self, student: Tensor, teacher: Tensor, where: str) -> None:
        student.requires_grad_()
        found = self.loss(student, teacher)
        expect(bool(found.isfinite().all()), f"{where}: the loss is {found.tolist()}")
        if found.requires_grad:
            (gradient,) = torch.autograd.grad(found.sum(), student)
            expect(bool(gradient.isfinite().all()), f"{where}: the gradient is not finite")


def check_loss(name: str, *, options: Mapping[str, Json] | None = None) -> None:
    """Run the whole contract of a distillation loss.

    Args:
        name: its name in the registry.
        options: options to call it with.

    Raises:
        ContractError: lists every check that failed.
        PluginError: no plugin provides the name.
    """
    require(LossContract(name, options or {}))
