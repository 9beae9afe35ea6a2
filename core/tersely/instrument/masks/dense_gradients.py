"""Gradients of masked elements: those of a zero that is added to what a mask leaves."""

from __future__ import annotations

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
    """

    is_wanted: bool = attrs.field(default=False, init=False)
    zero: Tensor | None = attrs.field(default=None, init=False)

    def fit(self, value: Tensor) -> Tensor:
        """Return a zero of a tensor's shape, dtype and device.

        Args:
            value: the parameter, or what the mask leaves of it.
        """
        zero = self.zero
        if zero is None or _kind(zero) != _kind(value):
            element = torch.zeros((), dtype=value.dtype, device=value.device)
            zero = self.zero = element.expand(value.shape).requires_grad_()
        return zero

    def complete(self, gradient: Tensor, mask: Tensor) -> Tensor:
        """Return a parameter's gradient with that of its masked elements.

        Args:
            gradient: of the parameter, as its optimizer used it.
            mask: 1 kept and 0 masked, a shape that broadcasts to it.
        """
        found = None if self.zero is None else self.zero.grad
        if found is None:
            return gradient
        found = (found.to_dense() if found.is_sparse else found).to(gradient.dtype)
        own = found * mask
        if torch.equal(own, gradient):
            return found
        # A loss scaler or clipping has changed the parameter's gradient since.
        before, after = torch.linalg.vector_norm(own), torch.linalg.vector_norm(gradient)
        scale = torch.where(before > 0, after / before, torch.ones_like(before))
        return torch.where(mask == 0, found * scale, gradient)

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
