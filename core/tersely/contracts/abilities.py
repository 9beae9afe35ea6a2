"""Abilities: declared by inheriting from their class, never told by a method's name.

This module has what pruners and quantizers have in common; `tersely.contracts.pruner` and
`tersely.contracts.quantizer` have the others. A class whose author cannot inherit lists the names
in its descriptor's ``abilities`` instead.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

Sums: TypeAlias = Mapping[str, Tensor]
"""What an algorithm observed in one batch or step: tensors that may be added up."""


class Ability(ABC):  # noqa: B024  # its subclasses have the methods
    """The base of everything that an algorithm can declare."""


class ObservesInputs(Ability):
    """An algorithm that needs the inputs of the target's module, seen in calibration."""

    @abstractmethod
    def observe_input(self, inputs: Tensor, target: Any) -> Sums:
        """Return what one call of the module adds to the observation.

        Args:
            inputs: the module's first tensor argument, any shape, detached.
            target: the target, without what was observed so far.
        """


class ObservesOutputs(Ability):
    """An algorithm that needs the outputs of the target's module, seen in calibration."""

    @abstractmethod
    def observe_output(self, outputs: Tensor, target: Any) -> Sums:
        """Return what one call of the module adds to the observation.

        Args:
            outputs: the module's output, or its first element, any shape, detached.
            target: the target, without what was observed so far.
        """


class Sequential(Ability):
    """An observing algorithm that is calibrated block by block, each after those before it.

    Attributes:
        sequential: False, perhaps by an option, for one calibration of the whole model.
    """

    sequential: bool = True


class Optimizes(Ability):
    """An algorithm that says how what it learns is moved; Adam with a rate of 0.01 otherwise."""

    @abstractmethod
    def optimizer(self, tensors: Sequence[Tensor]) -> torch.optim.Optimizer:
        """Return an optimizer of everything that is learned.

        Args:
            tensors: what the algorithm's ``start`` returned, for all targets.
        """


class Penalizes(Ability):
    """An algorithm that adds something to ``session.loss()``."""

    @abstractmethod
    def penalty(self, learned: Sequence[Mapping[str, Tensor]], steps: int) -> Tensor:
        """Return what is added to the loss, a 0-dim tensor.

        Args:
            learned: what is learned for each target, by name; of a pruner without `Learns` empty
                mappings, of a quantizer the targets that learn something already.
            steps: optimizer steps since the stage began.
        """
