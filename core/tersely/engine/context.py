"""What a session and its engines share: the model, the one clock and the kept batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import attrs
from torch import Tensor, nn

from tersely.contracts.settings import Budget
from tersely.engine.observation.batches import Batches
from tersely.engine.targets.binding import Binding
from tersely.masking.counted import Removal

CountsShrinking: TypeAlias = Callable[[Budget, Mapping[str, Tensor]], Removal]
"""Counts what masks (full name -> bool, the parameter's shape) let shrinking remove."""


@attrs.define(eq=False)
class Context:
    """What all engines of a session share; mutable, because the clock advances.

    Only the session writes to it; engines read.

    Attributes:
        model: the user's model.
        binding: the plan, bound to the model.
        teacher: the teacher of distillation stages, or None.
        steps: optimizer steps so far. During `Engine.step` it is still the number before that step.
        batches: the calibration batches, while a stage will look at them again.
        has_kept_batches: whether calibration kept its batches, in this session or before it was
            saved.
        example_inputs: what the session runs the model with where it has to, or None.
        count: counts what shrinking would remove, where a plan's budget asks for it and there are
            example inputs, or None.
    """

    model: nn.Module
    binding: Binding
    teacher: nn.Module | None = None
    steps: int = 0
    batches: Batches | None = None
    has_kept_batches: bool = False
    example_inputs: Any = None
    count: CountsShrinking | None = None
