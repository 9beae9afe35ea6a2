"""What a session and its engines share: the model, the one clock and the kept batches."""

from __future__ import annotations

import attrs
from torch import nn

from tersely.engine.batches import Batches
from tersely.engine.binding import Binding


@attrs.define(eq=False)
class Context:
    """The ground all engines of a session stand on; mutable, because the clock advances.

    Only the session writes to it; engines read.

    Attributes:
        model: the user's model.
        binding: the plan laid over the model.
        teacher: the teacher of distillation stages, or None.
        steps: optimizer steps so far. During `Engine.step` it is still the number before that step.
        batches: the calibration batches, while a stage will look at them again.
        has_kept_batches: whether calibration kept its batches, in this session or before it was
            saved.
    """

    model: nn.Module
    binding: Binding
    teacher: nn.Module | None = None
    steps: int = 0
    batches: Batches | None = None
    has_kept_batches: bool = False
