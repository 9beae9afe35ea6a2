"""What one algorithm observes of one target's module while batches run through the model."""

from __future__ import annotations

from typing import Any

import attrs
from torch import Tensor

from tersely.engine.targets.binding import BoundTarget


@attrs.define(eq=False)
class Watch:
    """What one algorithm observes of one target's module; mutable because batches add to it.

    Attributes:
        bound: the target.
        algorithm: the algorithm.
        target: the target as the algorithm sees it.
        sums: what was observed.
        is_called: whether a batch reached the module, if only without a row.
    """

    bound: BoundTarget
    algorithm: object
    target: Any
    sums: dict[str, Tensor] = attrs.field(factory=dict)
    is_called: bool = False
