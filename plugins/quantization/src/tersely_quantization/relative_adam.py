"""Adam whose steps are fractions of what it moves."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, overload

import torch
from torch import Tensor

_EPSILON = 1e-16  # gradients of scales shrink with the weights, and still have to count


class RelativeAdam(torch.optim.Adam):
    """Moves positive tensors by a share of their size: Adam over their logarithms.

    Kingma and Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015. An absolute step that
    suits a scale of 0.1 takes one of 0.001 below zero; a relative one suits both.

    Args:
        tensors: what to move, or groups of it; a group with ``relative`` False moves as in Adam.
        lr: the learning rate: about the share of its size that a tensor moves by in one step.
        floor: what smaller and negative values count as.
    """

    def __init__(
        self, tensors: Iterable[Tensor | Mapping[str, Any]], *, lr: float, floor: float
    ) -> None:
        groups: Any = list(tensors)
        self.floor = floor
        super().__init__(groups, lr=lr, eps=_EPSILON)
        for group in self.param_groups:
            group.setdefault("relative", True)

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Make one step.

        Args:
            closure: computes the loss again, or None.

        Returns:
            What the closure returns.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        before = [
            (tensor, tensor.clamp(min=self.floor), tensor.grad)
            for group in self.param_groups
            if group["relative"]
            for tensor in group["params"]
            if tensor.grad is not None
        ]
        for tensor, start, gradient in before:
            # The gradient to the logarithm, and zero for Adam to leave its step in.
            tensor.grad = gradient * start
            tensor.zero_()
        super().step()
        for tensor, start, gradient in before:
            tensor.copy_(start * tensor.exp())
            tensor.grad = gradient
        return loss
