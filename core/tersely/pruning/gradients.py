"""Gradients of the user's own backward passes, with the values that they belong to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
from torch import Tensor

from tersely.engine.binding import Handle, whole
from tersely.errors import SessionError


@attrs.define(eq=False)
class Gradients:
    """What an algorithm needs to see gradients; mutable because every backward pass writes to it.

    Attributes:
        before: target -> its values at the last backward pass, sharded as the parameter is.
    """

    before: dict[Handle, Tensor] = attrs.field(factory=dict)
    _heard: dict[Handle, Tensor] = attrs.field(factory=dict)
    _hooks: list[Any] = attrs.field(factory=list)

    def listen(self, handles: Sequence[Handle]) -> None:
        """Note a parameter's values whenever its gradient arrives.

        After the optimizer step, when the gradient is looked at, the values are others.

        Args:
            handles: parameter targets.
        """
        for handle in handles:
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
            Whole tensors of the target's shape; nothing at all when a gradient is not finite, since
            a loss scaler overflows now and then and the optimizer made no step then.

        Raises:
            SessionError: a gradient, or the parameter itself, is gone.
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
            if gradient is None or handle not in self.before:
                raise SessionError(
                    f"{name} has no gradient: {algorithm} observes gradients in session.step(), so "
                    f"call it after optimizer.step() and before optimizer.zero_grad()",
                    **handle.plan.place,
                )
            found.append((handle, gradient.detach()))
        if not all(bool(gradient.isfinite().all()) for _, gradient in found):
            return []
        return [(handle, gradient, whole(self.before[handle])) for handle, gradient in found]

    def _remember(self, handle: Handle) -> Any:
        def remember(parameter: Tensor) -> None:
            values = parameter.detach()
            if handle in self.before:
                self.before[handle].copy_(values)
            else:
                self.before[handle] = values.clone()

        return remember
