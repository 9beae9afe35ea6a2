"""Pruners that put input channels in another order, in which blocks and patterns are counted."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor

from tersely.contracts.abilities import Ability
from tersely.contracts.pruner import PruningTarget


class OrdersInputs(Ability):
    """A pruner that lets other input channels be neighbours, so that N:M masks less.

    The weight stays as it is. Its blocks and scopes are cut after its input channels were put in
    the order that is returned, and the mask is put back in their own. A pattern such as 2:4 then
    holds for the weight only when its inputs are put in that order, which the session saves, tells
    in its report and returns from ``session.input_orders()``.
    """

    @abstractmethod
    def input_order(self, target: PruningTarget) -> Tensor:
        """Return the order of a parameter's input channels.

        Called before ``importance``, and only where the order matters: where blocks or scopes
        divide the input dimension, and nothing else shares a decision with the target.

        Args:
            target: the parameter, which must not be modified; ``target.plan.input_dim`` is the
                dimension of its input channels.

        Returns:
            Shape (inputs,), int64: which input channel comes first, which one second, and so on.
        """
