"""Gradients of the user's own backward passes, with the values that they belong to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from tersely.engine.binding import Handle, whole
from tersely.errors import AttachError, SessionError


@attrs.define(eq=False)
class Gradients:
    """What an algorithm needs to see gradients; mutable because every backward pass writes to it.

    Attributes:
        before: target -> its values at the last backward pass, sharded as the parameter is.
    """

    before: dict[Handle, Tensor] = attrs.field(factory=dict)
    _heard: dict[Handle, Tensor] = attrs.field(factory=dict)
    _largest: dict[Handle, Tensor] = attrs.field(factory=dict)
    _hooks: list[Any] = attrs.field(factory=list)

    def listen(self, handles: Sequence[Handle]) -> None:
        """Note a parameter's values whenever its gradient arrives.

        After the optimizer step, when the gradient is looked at, the values are others.

        Args:
            handles: parameter targets.

        Raises:
            AttachError: a parameter is frozen, so no gradient will arrive.
        """
        for handle in handles:
            if not handle.raw.requires_grad:
                raise AttachError(
                    f"{handle.plan.name} is frozen (requires_grad is False), and "
                    f"{handle.plan.algorithm} ranks by gradients; leave it out with "
                    f"exclude_op_names, call requires_grad_(True) on it before, or rank it by an "
                    f"algorithm that needs no gradient, such as l1_norm",
                    **handle.plan.place,
                )
            self._heard[handle] = handle.raw
            hook = handle.raw.register_post_accumulate_grad_hook(  # type: ignore[no-untyped-call]  # torch
                self._remember(handle)
            )
            self._hooks.append(hook)

    def stop(self) -> None:
        """Stop listening."""
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()

    def seen(self, handles: Sequence[Handle]) -> list[tuple[Handle, Tensor, Tensor]]:
        """Return each target with its gradient and the values before the optimizer step.

        Every process has to ask when parameters are sharded.

        Args:
            handles: parameter targets that were listened to.

        Returns:
            Whole tensors of the target's shape, without targets that this step's backward passes
            did not reach; nothing at all when a gradient is not finite, since a loss scaler
            overflows now and then and the optimizer made no step then.

        Raises:
            SessionError: there is no gradient at all, one was zeroed after it had arrived, or a
                parameter is another one.
        """
        found = []
        for handle in handles:
            name, algorithm = handle.plan.name, handle.plan.algorithm
            if self._heard.get(handle) is not handle.raw:
                raise SessionError(
                    f"{name} is another parameter than when the session was attached, so "
                    f"{algorithm} does not see its gradients; fully_shard() and "
                    f"load_state_dict(assign=True) replace parameters: call them before "
                    f"tersely.attach() or tersely.load_session()",
                    **handle.plan.place,
                )
            gradient = handle.gradient()
            if self._is_zeroed(handle, gradient):
                raise _missing(handle)
            if gradient is not None and handle in self.before:
                found.append((handle, gradient.detach()))
        if handles and not found:
            raise _missing(handles[0])
        self._largest.clear()
        if not all(bool(gradient.isfinite().all()) for _, gradient in found):
            return []
        return [(handle, gradient, whole(self.before[handle])) for handle, gradient in found]

    def _is_zeroed(self, handle: Handle, gradient: Tensor | None) -> bool:
        largest = self._largest.get(handle)
        if largest is None:
            return False  # no backward pass has reached it in this step
        return gradient is None or (bool(largest > 0) and not bool(gradient.any()))

    def _remember(self, handle: Handle) -> Any:
        def remember(parameter: Tensor) -> None:
            values = parameter.detach()
            if parameter.grad is not None:
                # Tells a gradient that was zeroed since from one that is zero.
                self._largest[handle] = _largest_of(parameter.grad)
            if handle in self.before:
                self.before[handle].copy_(values)
            else:
                self.before[handle] = values.clone()

        return remember


def _largest_of(gradient: Tensor) -> Tensor:
    local = gradient.to_local() if hasattr(gradient, "to_local") else gradient
    if not local.numel():
        return local.new_zeros(())
    largest: Tensor = torch.linalg.vector_norm(local.detach(), float("inf"))
    return largest


def _missing(handle: Handle) -> SessionError:
    return SessionError(
        f"{handle.plan.name} has no gradient: {handle.plan.algorithm} observes gradients in "
        f"session.step(), so call it after optimizer.step() and before optimizer.zero_grad()",
        **handle.plan.place,
    )
