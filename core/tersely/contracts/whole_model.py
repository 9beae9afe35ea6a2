"""Scoring all targets of a model at once, by running it forward and backward."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import attrs
from torch import Tensor, nn

from tersely.contracts.abilities import Ability
from tersely.contracts.pruner import PruningTarget


@attrs.frozen(eq=False)
class WholeModel:
    """A model, and what it can be run with.

    Attributes:
        module: the user's model, in eval mode, whose masks in force take effect when weights are
            read. Its parameters have no gradients.
        batches: the batches of ``session.calibrate``, or what the session was attached with as
            ``example_inputs``; empty without either.
    """

    module: nn.Module
    batches: Sequence[Any]
    _call: Callable[[nn.Module, Any], Any] = attrs.field(repr=False)

    def outputs(self, batch: Any) -> Any:
        """Return what the model returns for a batch.

        Args:
            batch: one of the batches, or anything like it: a tensor, a tuple or list of arguments,
                a mapping of keyword arguments, or what ``forward`` of ``session.calibrate`` takes.
        """
        return self._call(self.module, batch)

    def parameter(self, target: PruningTarget) -> Tensor:
        """Return the parameter or buffer of a target itself, which masks leave dense.

        Args:
            target: one of the targets.
        """
        name = target.plan.target
        found = target.module._parameters.get(name)
        tensor = target.module._buffers.get(name) if found is None else found
        if tensor is None:
            raise ValueError(f"{target.name} is an input or output, not a tensor of the model")
        return tensor


class ScoresModel(Ability):
    """A pruner that scores all its targets together; it needs no ``importance``.

    Attributes:
        needs_inputs: False where it runs nothing, so that a session needs no batches.
    """

    needs_inputs: bool = True

    @abstractmethod
    def score_model(self, model: WholeModel, targets: Sequence[PruningTarget]) -> Sequence[Tensor]:
        """Return the scores of every target, larger means keep.

        Called with gradients enabled. Whatever is done to the model is undone afterwards, bit for
        bit: values, gradients, modes, attributes and hooks. That takes the memory of a copy.

        Args:
            model: the model, of which anything may be changed.
            targets: all targets of the stage; ``model.parameter(target)`` is what one ranks.

        Returns:
            For each target scores of its tensor's shape (summed over each block) or of the shape of
            its blocks, added up over processes.
        """
