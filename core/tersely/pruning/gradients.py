"""Gradients of the user's own backward passes, with the values that they belong to."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import attrs
import torch
from torch import Tensor

from tersely.engine.processes import average_gradients
from tersely.engine.targets.binding import BoundTarget, whole
from tersely.errors import AttachError, SessionError
from tersely.instrument.masks.dense_gradients import DenseGradient
from tersely.instrument.modules.classes import is_sharded
from tersely.pruning.mask_buffers import mask_of


@attrs.define(eq=False)
class Gradients:
    """What an algorithm needs to see gradients; mutable because every backward pass writes to it.

    Attributes:
        before: target -> its values at the last backward pass, sharded as the parameter is.
        dense: target -> what receives the gradients of its masked elements, where its algorithm
            asks for them and the parameter's own gradient lacks them.
    """

    before: dict[BoundTarget, Tensor] = attrs.field(factory=dict)
    dense: dict[BoundTarget, DenseGradient] = attrs.field(factory=dict)
    _heard: dict[BoundTarget, tuple[Tensor, int]] = attrs.field(factory=dict)
    _largest: dict[BoundTarget, Tensor] = attrs.field(factory=dict)
    _hooks: list[Any] = attrs.field(factory=list)
    _is_resting: bool = False

    def listen(self, bound_targets: Sequence[BoundTarget]) -> None:
        """Note a parameter's values whenever its gradient arrives.

        When the gradient is read, after the optimizer step, the values have changed.

        Args:
            bound_targets: parameter targets.

        Raises:
            AttachError: a parameter is frozen, so no gradient will arrive.
        """
        need_learning(bound_targets)
        for bound in bound_targets:
            self._heard[bound] = _identity(bound.raw)
            hook = bound.raw.register_post_accumulate_grad_hook(  # type: ignore[no-untyped-call]  # torch
                self._remember(bound)
            )
            self._hooks.append(hook)

    def stop(self) -> None:
        """Stop listening."""
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()

    @contextlib.contextmanager
    def resting(self) -> Iterator[None]:
        """Ignore gradients inside the block."""
        wanted = {dense: dense.is_wanted for dense in self.dense.values()}
        try:
            self._is_resting = True
            for dense in wanted:
                dense.is_wanted = False
            yield
        finally:
            self._is_resting = False
            for dense, is_wanted in wanted.items():
                dense.is_wanted = is_wanted

    def seen(
        self, bound_targets: Sequence[BoundTarget]
    ) -> list[tuple[BoundTarget, Tensor, Tensor]]:
        """Return each target with its gradient and the values before the optimizer step.

        Every process has to call this when parameters are sharded.

        Args:
            bound_targets: parameter targets that were listened to.

        Returns:
            Whole tensors of the target's shape, without targets that this step's backward passes
            did not reach; nothing at all when a gradient is not finite, since a loss scaler
            overflows now and then and the optimizer made no step then.

        Raises:
            SessionError: there is no gradient at all, one was zeroed after it had arrived, or a
                parameter was replaced.
        """
        found = []
        average_gradients([one.zero for one in self.dense.values() if one.zero is not None])
        for bound in bound_targets:
            name, algorithm = bound.plan.name, bound.plan.algorithm
            if not _is_same(self._heard.get(bound), bound.raw):
                raise SessionError(
                    f"{name} is another parameter than when the session was attached, so "
                    f"{algorithm} does not see its gradients; fully_shard(), "
                    "load_state_dict(assign=True) and torch.utils.swap_tensors() replace "
                    "parameters: call them before tersely.attach() or tersely.load_session()",
                    **bound.plan.place,
                )
            gradient = _dense(bound.gradient())
            if self._is_zeroed(bound, gradient):
                raise _missing([bound])
            if gradient is not None and bound in self.before:
                found.append((bound, gradient.detach()))
        found = self._completed(found)
        if bound_targets and not found:
            raise _missing(bound_targets)
        self._largest.clear()
        if not all(bool(gradient.isfinite().all()) for _, gradient in found):
            return []
        return [(bound, gradient, whole(self.before[bound])) for bound, gradient in found]

    def _completed(
        self, gradients: list[tuple[BoundTarget, Tensor]]
    ) -> list[tuple[BoundTarget, Tensor]]:
        """Return gradients with those of masked elements."""
        masked = {
            bound: (dense, gradient, mask)
            for bound, gradient in gradients
            if (dense := self.dense.get(bound)) is not None and (mask := mask_of(bound)) is not None
        }
        scales = {
            bound: dense.scale(gradient, mask) for bound, (dense, gradient, mask) in masked.items()
        }
        # A loss scaler, and clipping by the norm of all of them, scale all by the same factor.
        common = next((scale for scale in scales.values() if scale is not None), None)
        found = []
        for bound, gradient in gradients:
            if bound in masked:
                dense, own, mask = masked[bound]
                scale = common if scales[bound] is None else scales[bound]
                found.append((bound, dense.complete(own, mask, scale)))
            else:
                found.append((bound, gradient))
        return found

    def gather_dense(self, dense: Mapping[BoundTarget, DenseGradient]) -> None:
        """Gather gradients of masked elements, as long as the parameters' own are not discarded.

        Args:
            dense: target -> what receives them.
        """
        self.dense = dict(dense)
        for bound, one in self.dense.items():
            # Where a parameter is sharded, all processes would have to be asked together.
            if not is_sharded(bound.raw):
                one.is_discarded = partial(self._is_discarded, bound)

    def _is_discarded(self, bound: BoundTarget) -> bool:
        return not self._is_resting and self._is_zeroed(bound, _dense(bound.raw.grad))

    def await_step(self, *, is_wanted: bool) -> None:
        """Forget the dense gradients of the step that was made, and gather those of the next.

        Args:
            is_wanted: whether the algorithm looks at the next step.
        """
        for dense in self.dense.values():
            dense.forget()
            dense.is_wanted = is_wanted

    def _is_zeroed(self, bound: BoundTarget, gradient: Tensor | None) -> bool:
        largest = self._largest.get(bound)
        if largest is None:
            return False  # no backward pass has reached it in this step
        return gradient is None or (bool(largest > 0) and not bool(gradient.any()))

    def _remember(self, bound: BoundTarget) -> Any:
        def remember(parameter: Tensor) -> None:
            if self._is_resting:
                return
            values = parameter.detach()
            if parameter.grad is not None:
                # Tells a gradient that was zeroed since from one that is zero.
                self._largest[bound] = _largest_of(parameter.grad)
            before = self.before.get(bound)
            # A model may move to another dtype or device between two steps.
            if before is None or (before.dtype, before.device) != (values.dtype, values.device):
                self.before[bound] = values.clone()
            else:
                before.copy_(values)

        return remember


def _identity(parameter: Tensor) -> tuple[Tensor, int]:
    # torch.utils.swap_tensors() keeps the object, and hands the hook that is inside to another.
    return parameter, parameter._cdata


def _is_same(heard: tuple[Tensor, int] | None, parameter: Tensor) -> bool:
    return heard is not None and heard[0] is parameter and heard[1] == parameter._cdata


def _dense(gradient: Tensor | None) -> Tensor | None:
    return gradient.to_dense() if gradient is not None and gradient.is_sparse else gradient


def need_learning(bound_targets: Sequence[BoundTarget]) -> None:
    """Refuse a parameter of which no gradient will arrive.

    Args:
        bound_targets: parameter targets.

    Raises:
        AttachError: names the first one that is frozen.
    """
    for bound in bound_targets:
        if not bound.raw.requires_grad:
            raise AttachError(
                f"{bound.plan.name} is frozen (requires_grad is False), and "
                f"{bound.plan.algorithm} ranks by gradients; leave it out with exclude_op_names, "
                "call requires_grad_(True) on it before, or rank it by an algorithm that needs no "
                "gradient, such as l1_norm",
                **bound.plan.place,
            )


def _largest_of(gradient: Tensor) -> Tensor:
    local = gradient.to_local() if hasattr(gradient, "to_local") else gradient
    local = local.coalesce().values() if local.is_sparse else local
    if not local.numel():
        return local.new_zeros(())
    largest: Tensor = torch.linalg.vector_norm(local.detach(), float("inf"))
    return largest


def frozen(bound: BoundTarget) -> SessionError:
    """Return the error for a target that was frozen after the session was attached.

    Args:
        bound: the target.
    """
    name = bound.plan.name
    return SessionError(
        f"{name} has been frozen since the session was attached (requires_grad is False), and "
        f"{bound.plan.algorithm} ranks by gradients; call requires_grad_(True) on it, or keep the "
        f"mask that it has with session.freeze([{name!r}])",
        **bound.plan.place,
    )


def _missing(bound_targets: Sequence[BoundTarget]) -> SessionError:
    bound = next((one for one in bound_targets if not one.raw.requires_grad), None)
    if bound is not None:
        return frozen(bound)
    bound = bound_targets[0]
    return SessionError(
        f"{bound.plan.name} has no gradient: {bound.plan.algorithm} observes gradients in "
        "session.step(), so call it after optimizer.step() and before optimizer.zero_grad()",
        **bound.plan.place,
    )
