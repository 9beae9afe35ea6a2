"""Pruners that define another order of input channels for blocks and patterns."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor

from tersely.contracts.abilities import Ability
from tersely.contracts.pruner import PruningTarget


class OrdersInputs(Ability):
    """A pruner that reorders input channels, so that N:M masks less important weights.

    The weight does not change. Its blocks and scopes are formed in the returned order of input
    channels, and the mask is converted back to the original order. A pattern such as 2:4 then only
    holds in the returned order, which the session saves, shows in its report and returns from
    ``session.input_orders()``.
    """

    @abstractmethod
    def input_order(self, target: PruningTarget) -> Tensor:
        """Return the order of a parameter's input channels.

        Called before ``importance``, and only if the order matters: if blocks or scopes divide the
        input dimension, and nothing else shares a decision with the target.

        Args:
            target: the parameter, which must not be modified; ``target.plan.input_dim`` is the
                dimension of its input channels.

        Returns:
            Shape (inputs,), int64: the indices of the input channels in the new order.
        """
