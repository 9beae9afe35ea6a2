"""How the contract of losses calls a loss, whatever arguments it takes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import ClassVar, cast

import attrs
import torch
from torch import Tensor

from tersely.distillation.calling import AskedLoss, Loss, batch_parts
from tersely.distillation.states import built, shape_of
from tersely.errors import PluginError
from tersely.registry.registry import registry
from tersely.testing.contract import Contract, Kind, expect

# Losses that compare samples with each other need more than two samples.
_SAMPLES = 4
_TARGETS = 3  # of a loss that takes any number of them
_SHAPES = ((_SAMPLES, 10), (_SAMPLES, 5, 8), (_SAMPLES, 4, 6, 6))


@attrs.define(eq=False)
class LossCalls(Contract):
    """A loss, by its name, and calls of it."""

    kind: ClassVar[Kind] = "losses"

    def loss(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the loss of one pair.

        A loss of the student alone gets no teacher. Each part of a batch that a loss asks for is
        the numbers 0 to 3, over and over, one for each sample: indices of samples, or labels.

        Args:
            student: any shape, float.
            teacher: the student's shape, float.
        """
        return self.call(self.fresh(student, teacher), student, teacher)

    @property
    def asked(self) -> AskedLoss:
        """The loss and the arguments that it takes."""
        info = registry().losses.info(self.name)
        parts = batch_parts(info, self.arguments)
        return AskedLoss(cast("Loss", self.catalog[self.name]), info, self.arguments, parts)

    def fresh(self, student: Tensor, teacher: Tensor) -> Loss:
        """Return a new loss for features of some shapes.

        Args:
            student: any shape, float.
            teacher: the student's shape, float.
        """
        asked = self.asked
        if not asked.is_stateful:
            return partial(asked.function, **self.arguments)
        theirs = teacher if asked.needs_teacher else None
        try:
            shapes = (shape_of(self._values(student)), shape_of(self._values(theirs)))
            return built("contract", asked, shapes)
        except PluginError as error:
            if isinstance(error.__cause__, ValueError):
                raise error.__cause__ from None  # a shape that it rejects
            raise

    def _values(self, values: Tensor | None) -> object:
        # Of several targets each has the values in another order of the samples' features.
        count = registry().losses.info(self.name).targets
        if count == 1 or values is None:
            return values
        return tuple(values.roll(place, 1) for place in range(_TARGETS if count is None else count))

    def call(self, loss: Loss, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the loss of one pair from a loss that was made before.

        Args:
            loss: what `fresh` returned.
            student: any shape, float.
            teacher: the student's shape, float.
        """
        asked = self.asked
        given = dict.fromkeys(asked.parts, torch.arange(len(student)) % _SAMPLES)
        theirs = teacher if asked.needs_teacher else None
        found: object = loss(self._values(student), self._values(theirs), **given)
        expect(isinstance(found, Tensor), f"it returned {type(found).__name__}, expected a tensor")
        return cast("Tensor", found)

    @property
    def shapes(self) -> Sequence[tuple[int, ...]]:
        """The shapes that the loss accepts; it rejects others with a ValueError."""
        found, refusal = [], ""
        for shape in _SHAPES:
            try:
                self.loss(*pair_of(shape))
            except ValueError as error:
                refusal = str(error)
            else:
                found.append(shape)
        expect(bool(found), f"it rejects every shape of {_SHAPES}: {refusal}")
        return found


def pair_of(shape: tuple[int, ...], *, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return features of a student and a teacher, the same at every call.

    Args:
        shape: their shape.
        seed: another seed gives other features.
    """
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator), torch.randn(shape, generator=generator)
