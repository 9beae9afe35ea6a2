"""How far a model's outputs are from the dense model's, on the same batches."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from tersely.contracts.calling import call_model
from tersely.engine.observation.batches import Forward
from tersely.engine.observation.padding import PaddingMask, data_of, leaving_out, mask_of
from tersely.errors import CalibrationError


@attrs.frozen(eq=False)
class DenseOutputs:
    """The dense model's outputs for some batches.

    Attributes:
        batches: the batches.
        answers: the tensors of each output, without padding.
        forward: called as forward(model, batch), or None for the default.
        mask: how to find which positions of a batch are data.
    """

    batches: tuple[Any, ...]
    answers: tuple[tuple[Tensor, ...], ...] = attrs.field(repr=False)
    forward: Forward | None = None
    mask: PaddingMask | None = None

    @classmethod
    def of(
        cls,
        model: nn.Module,
        batches: Sequence[Any],
        *,
        forward: Forward | None = None,
        mask: PaddingMask | None = None,
    ) -> DenseOutputs:
        """Run batches through the dense model.

        Args:
            model: the model, in evaluation mode.
            batches: what to run.
            forward: called as forward(model, batch), or None for the default.
            mask: how to find which positions of a batch are data.

        Raises:
            CalibrationError: there is no batch, or an output holds no floating-point tensor.
        """
        if not batches:
            raise CalibrationError("there is no batch to compare outputs on; give at least one")
        found = tuple(_answer(model, batch, forward, mask) for batch in batches)
        if not all(found):
            raise CalibrationError(
                "the model's output holds no tensor of floats to compare; give a forward that "
                "returns one, or an evaluate"
            )
        return cls(tuple(batches), found, forward, mask)

    def error_of(self, model: nn.Module) -> float:
        """Return the norm of the difference from the dense outputs, relative to their norm.

        Args:
            model: the model as it is now, in evaluation mode.

        Returns:
            The root of the mean over the output's tensors of squared difference over squared norm;
            0 for equal outputs, infinity if anything is not finite.
        """
        count = len(self.answers[0])
        apart, length = [0.0] * count, [0.0] * count
        for batch, dense in zip(self.batches, self.answers, strict=True):
            now = _answer(model, batch, self.forward, self.mask)
            for place, (one, other) in enumerate(zip(now, dense, strict=True)):
                apart[place] += _squared(one - other)
                length[place] += _squared(other)
        shares = [_share(one, other) for one, other in zip(apart, length, strict=True)]
        error = math.sqrt(sum(shares) / count)
        return error if math.isfinite(error) else math.inf


def _answer(
    model: nn.Module, batch: Any, forward: Forward | None, mask: PaddingMask | None
) -> tuple[Tensor, ...]:
    with torch.no_grad(), leaving_out(mask_of(batch, mask)):
        output = (call_model if forward is None else forward)(model, batch)
        parts = [data_of(leaf.detach()) for leaf in _floats(output)]
    return tuple(torch.cat([one.flatten() for one in part]) for part in parts if part)


def _floats(output: object) -> Iterator[Tensor]:
    for leaf in tree_leaves(dict(output) if isinstance(output, Mapping) else output):
        if isinstance(leaf, Tensor) and leaf.is_floating_point():
            yield leaf


def _squared(values: Tensor) -> float:
    return float(torch.linalg.vector_norm(values, dtype=torch.float64)) ** 2


def _share(apart: float, length: float) -> float:
    if length == 0:
        return 0.0 if apart == 0 else math.inf
    return apart / length
