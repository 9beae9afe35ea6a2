"""Gradients of masked elements: those of a zero that is added to what a mask leaves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import torch
from torch import Tensor


@attrs.define(eq=False, slots=False)
class DenseGradient:
    """Receives the gradient of a loss by a masked tensor, also where it is masked.

    The zero is a leaf, so gradients accumulate in it as in a parameter, compiled or not. Mutable,
    because they do, and because the zero follows the parameter to another device. A copy or pickle
    of a model has no session that would look at gradients, so it gathers none.

    Attributes:
        is_wanted: whether the next backward pass counts.
        zero: the parameter's shape, one element in memory; None in copies.
        is_discarded: tells whether the parameter's gradients so far were zeroed, with which those
            of its masked elements go; None where that is not known.
    """

    is_wanted: bool = attrs.field(default=False, init=False)
    zero: Tensor | None = attrs.field(default=None, init=False)
    is_discarded: Callable[[], bool] | None = attrs.field(default=None, init=False)

    def fit(self, value: Tensor) -> Tensor:
        """Return a zero of a tensor's shape, dtype and device.

        Args:
            value: the parameter, or what the mask leaves of it.
        """
        zero = self.zero
        if zero is None or _kind(zero) != _kind(value):
            element = torch.zeros((), dtype=value.dtype, device=value.device)
            zero = self.zero = element.expand(value.shape).requires_grad_()
            if not torch.compiler.is_compiling():
                zero.register_hook(self._before_accumulating)  # type: ignore[no-untyped-call]  # torch
        return zero

    def _before_accumulating(self, _: Tensor) -> None:
        # It comes before the parameter's own gradient, which goes through the mask as well.
        if self.is_discarded is not None and self.is_discarded():
            self.forget()

    def _found(self, gradient: Tensor) -> Tensor | None:
        grad = None if self.zero is None else self.zero.grad
        if grad is None:
            return None
        found: Tensor = (grad.to_dense() if grad.is_sparse else grad).to(gradient.dtype)
        return found

    def scale(self, gradient: Tensor, mask: Tensor) -> Tensor | None:
        """Return what a loss scaler or clipping has multiplied a parameter's gradient by.

        Args:
            gradient: of the parameter, as its optimizer used it.
            mask: 1 kept and 0 masked, a shape that broadcasts to it.

        Returns:
            0-dim; None where the gradient of what is kept is zero, which does not tell.
        """
        found = self._found(gradient)
        if found is None:
            return None
        own = torch.where(mask == 0, 0, found)
        # A half-precision sum of squares overflows soon.
        wide = torch.promote_types(gradient.dtype, torch.float32)
        before: Tensor = torch.linalg.vector_norm(own, dtype=wide)
        if not bool(before > 0):
            return None
        if torch.equal(own, gradient):
            return torch.ones_like(before)
        after: Tensor = torch.linalg.vector_norm(gradient, dtype=wide)
        return after / before

    def complete(self, gradient: Tensor, mask: Tensor, scale: Tensor | None) -> Tensor:
        """Return a parameter's gradient with that of its masked elements.

        Args:
            gradient: of the parameter, as its optimizer used it.
            mask: 1 kept and 0 masked, a shape that broadcasts to it.
            scale: what to multiply the gradient of masked elements by, or None for 1.
        """
        found = self._found(gradient)
        if found is None:
            return gradient
        if scale is not None:
            found = found * scale.to(found.device)
        return torch.where(mask == 0, found, gradient)

    def forget(self) -> None:
        """Drop the gradients so far."""
        if self.zero is not None:
            self.zero.grad = None

    def __deepcopy__(self, memo: dict[int, Any]) -> DenseGradient:
        return DenseGradient()

    def __reduce__(self) -> tuple[type[DenseGradient], tuple[()]]:
        return DenseGradient, ()


def _kind(tensor: Tensor) -> tuple[torch.Size, torch.dtype, torch.device]:
    return tensor.shape, tensor.dtype, tensor.device
