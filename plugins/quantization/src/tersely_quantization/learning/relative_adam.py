"""Adam whose steps are fractions of the tensor's values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, overload

import torch
from torch import Tensor

_EPSILON = 1e-16  # gradients of scales shrink with the weights, and must still count


class RelativeAdam(torch.optim.Adam):
    """Changes positive tensors by fractions: Adam over their logarithms.

    Kingma and Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015. An absolute step that
    suits a scale of 0.1 would make one of 0.001 negative; a relative step suits both.

    Args:
        tensors: tensors or groups of them; a group with ``relative`` False is updated as in Adam.
        lr: the learning rate: about the fraction by which a tensor changes in one step.
        floor: the value that replaces smaller and negative ones.
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
            # The gradient of the logarithm, and a zero to which Adam adds its step.
            tensor.grad = gradient * start
            tensor.zero_()
        super().step()
        for tensor, start, gradient in before:
            tensor.copy_(start * tensor.exp())
            tensor.grad = gradient
        return loss
