"""Pruners that regrow masked elements: they observe their gradients, and start them at zero."""

from __future__ import annotations

from tersely.contracts.abilities import Ability
from tersely.contracts.pruner import ObservesGradients


class ObservesDenseGradients(ObservesGradients):
    """A pruner whose ``observe_gradient`` also gets the gradients of masked elements.

    They are gradients of the loss by the masked tensor, as if nothing were masked, while forward
    computes with the masks in force. The parameter's own gradient stays zero where it is masked. A
    loss scaler and clipping by norm have the same effect on both. Accumulating them costs the
    memory of one more gradient.

    The first masks may be decided before any step: ``target.observed`` is empty then.

    Attributes:
        only_when_due: whether to observe only the gradient of the step in which new masks are due,
            so that other steps cost nothing. Without a schedule, every step counts.
    """

    only_when_due: bool = False


class RegrowsFromZero(Ability):
    """A pruner whose masked elements start at zero in the parameter when a later mask keeps them.

    Otherwise they keep their previous values. Zeroed elements stay zero in the model that
    ``session.detach()`` returns.

    Attributes:
        from_zero: False, for example by an option, to keep their previous values.
    """

    from_zero: bool = True
