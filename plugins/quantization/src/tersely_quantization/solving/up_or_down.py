"""Rounding up or down for the least output error, learned with explicit gradients.

Everything here minimizes tr(D H D^T) for the error D of a matrix and the products H of its inputs.
"""

from __future__ import annotations

import math

import attrs
import torch
from torch import Tensor

from tersely_quantization.solving.rounding import Grid
from tersely_quantization.solving.weighed import output_errors

# Limits of the stretched sigmoid, so that 0 and 1 are reached (equation 23).
_LOW, _HIGH = -0.1, 1.1
# The power of the regularizer goes from the first to the second.
_BETAS = (20.0, 2.0)


@attrs.frozen
class Course:
    """The settings with which rounding is learned.

    Attributes:
        iterations: the steps of Adam.
        learning_rate: that of Adam.
        warm_up: the share of the iterations without regularizer, in [0, 1].
        regularization: the factor of the regularizer, relative to the error in squared steps.
    """

    iterations: int
    learning_rate: float
    warm_up: float
    regularization: float

    def beta(self, iteration: int) -> float | None:
        """Return the power of the regularizer, or None during the warm-up."""
        first = self.warm_up * self.iterations
        if iteration < first:
            return None
        done = (iteration - first) / max(self.iterations - first, 1)
        start, end = _BETAS
        return end + (start - end) * (1 + math.cos(math.pi * done)) / 2


def learn_rounding(weight: Tensor, gram: Tensor, grid: Grid, course: Course) -> Tensor:
    """Round a weight up or down so that its outputs stay close.

    Args:
        weight: shape (rows, columns), float; read only. Zeros stay zero: they may be masked.
        gram: H, shape (columns, columns), symmetric.
        grid: the values that each element may take.
        course: the settings.

    Returns:
        Values of the grid, shape (rows, columns); no row is worse than with nearest rounding.
    """
    position = weight / grid.scale
    down = position.floor().clamp_(grid.low, grid.high)
    room = (down + 1 <= grid.high) & (weight != 0)
    share = _learn((position - down).clamp_(0, 1), weight, gram, grid, down, room, course)
    learned = (down + (share >= 0.5) * room).mul_(grid.scale)  # noqa: PLR2004  # half way up
    nearest = grid.nearest(weight)
    is_better = output_errors(learned - weight, gram) < output_errors(nearest - weight, gram)
    return torch.where(is_better[:, None], learned, nearest)


def _learn(
    share: Tensor,
    weight: Tensor,
    gram: Tensor,
    grid: Grid,
    down: Tensor,
    room: Tensor,
    course: Course,
) -> Tensor:
    """Return the learned share of rounding up of each weight, 0 to 1, shape (rows, columns)."""
    stretch = _HIGH - _LOW
    raw = torch.logit((share - _LOW) / stretch)
    step = grid.scale * room
    start = torch.addcmul(-weight, down, grid.scale)
    # Errors are in steps of their row and inputs in units of their mean norm, so that the
    # regularizer has the same weight in any units.
    tiny = torch.finfo(weight.dtype).tiny
    unit = (grid.scale.square().mean(1, keepdim=True) * gram.diagonal().mean()).clamp_min(tiny)
    pull = 2 * step / unit
    adam = torch.optim.Adam([raw], lr=course.learning_rate)
    soft, share, change, slope = (torch.empty_like(raw) for _ in range(4))
    for iteration in range(course.iterations):
        torch.sigmoid(raw, out=soft)
        torch.mul(soft, stretch, out=share).add_(_LOW).clamp_(0, 1)
        torch.addcmul(start, step, share, out=change)
        gradient = torch.mm(change, gram).mul_(pull)
        beta = course.beta(iteration)
        if beta is not None:
            away = share.mul_(2).sub_(1)
            strength = torch.abs(away, out=change).pow_(beta - 1).mul_(away.sign())
            gradient.sub_(strength, alpha=2 * beta * course.regularization)
            share.add_(1).div_(2)
        # The clamp passes no gradient at 0 and 1.
        torch.mul(soft, 1 - soft, out=slope).mul_(stretch).mul_((share > 0) & (share < 1))
        raw.grad = gradient.mul_(slope)
        adam.step()
    torch.sigmoid(raw, out=soft)
    return soft.mul_(stretch).add_(_LOW).clamp_(0, 1)
