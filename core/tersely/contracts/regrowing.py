"""What a pruner may do that lets masked elements come back: see their gradients, start at zero."""

from __future__ import annotations

from tersely.contracts.abilities import Ability
from tersely.contracts.pruner import ObservesGradients


class ObservesDenseGradients(ObservesGradients):
    """A pruner whose ``observe_gradient`` is given the gradients of masked elements too.

    They are gradients of the loss by the masked tensor, as if nothing were masked, while forward
    computes with the masks in force. The parameter's own gradient stays zero where it is masked. A
    loss scaler and clipping by norm have the same effect on both. Accumulating them costs the
    memory of one more gradient.

    The first masks may be decided before any step: ``target.observed`` is empty then.

    Attributes:
        only_when_due: whether nothing but the gradient of the very step with which new masks are
            due is observed. Steps before it cost nothing then. Without a schedule every step
            counts.
    """

    only_when_due: bool = False


class RegrowsFromZero(Ability):
    """A pruner whose masked elements are zero in the parameter when a later mask keeps them.

    Without it they come back with the values that they had. What is zeroed stays so in the model
    that ``session.detach()`` gives back.

    Attributes:
        from_zero: False, perhaps by an option, where they come back as they were.
    """

    from_zero: bool = True
