"""Second-order information: products of a loss's Hessian with vectors, before the backward pass."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import attrs
import torch
from torch import Tensor

from tersely.contracts.abilities import Ability, Sums
from tersely.contracts.pruner import PruningTarget


@attrs.frozen(eq=False)
class Curvature:
    """A loss with its derivatives by the parameters of some targets.

    Attributes:
        loss: the result of ``session.total_loss``, 0-dim, with its graph. The user calls backward
            on it later, so retain the graph if you differentiate it.
        parameters: the parameter of each target, raw, in the order of the targets.
        gradients: the gradient of the loss by each of them, of its shape, with a graph. With a mask
            that is applied on each read, that of a masked element is zero.
        step: the optimizer steps so far; use it as a seed of random vectors.
    """

    loss: Tensor
    parameters: Sequence[Tensor]
    gradients: Sequence[Tensor]
    step: int

    def times(self, vectors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return the product of the Hessian with a vector.

        Each call costs about two backward passes.

        Args:
            vectors: its part for each target, of the parameter's shape.

        Returns:
            The product's part for each target, of the parameter's shape, without a graph.
        """
        pairs = [
            (gradient, vector)
            for gradient, vector in zip(self.gradients, vectors, strict=True)
            if gradient.requires_grad
        ]
        if not pairs:  # the loss is linear
            return tuple(torch.zeros_like(one) for one in self.parameters)
        outputs, weights = zip(*pairs, strict=True)
        found: Sequence[Tensor | None] = torch.autograd.grad(
            outputs, list(self.parameters), weights, retain_graph=True, allow_unused=True
        )
        return tuple(
            torch.zeros_like(parameter) if one is None else one.detach()
            for parameter, one in zip(self.parameters, found, strict=True)
        )


class ObservesCurvature(Ability):
    """A pruner that needs second derivatives, observed whenever ``session.total_loss`` is called.

    A step then costs one more backward pass, whose graph is kept, and two for each product: three
    times the time and twice the memory of a plain step with one product.

    Attributes:
        only_when_due: whether to observe only the loss of the step in which new masks are due.
            Without a schedule, every step counts.
    """

    only_when_due: bool = False

    @abstractmethod
    def observe_curvature(
        self, curvature: Curvature, targets: Sequence[PruningTarget]
    ) -> Sequence[Sums]:
        """Return the contribution of one loss to the observation of each target.

        Called with gradients enabled, before the user's backward pass.

        Args:
            curvature: the loss and its Hessian at the targets' parameters.
            targets: the targets that the loss depends on; each ``tensor`` holds the values that the
                loss was computed with.

        Returns:
            For each target tensors that can be summed over steps and processes, by name.
        """
