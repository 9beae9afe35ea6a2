"""Abilities: declared by inheriting from their class, never inferred from a method's name.

This module has the abilities of both pruners and quantizers; `tersely.contracts.pruner` and
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
"""The observation of one batch or step: tensors that can be summed."""


class Ability(ABC):  # noqa: B024  # its subclasses have the methods
    """The base class of all abilities."""


class ObservesInputs(Ability):
    """An algorithm that observes the inputs of the target's module in calibration."""

    @abstractmethod
    def observe_input(self, inputs: Tensor, target: Any) -> Sums:
        """Return the contribution of one call of the module to the observation.

        Args:
            inputs: the module's first tensor argument, any shape, detached.
            target: the target, without earlier observations.
        """


class ObservesOutputs(Ability):
    """An algorithm that observes the outputs of the target's module in calibration."""

    @abstractmethod
    def observe_output(self, outputs: Tensor, target: Any) -> Sums:
        """Return the contribution of one call of the module to the observation.

        Args:
            outputs: the module's output, or its first element, any shape, detached.
            target: the target, without earlier observations.
        """


class Sequential(Ability):
    """An observing algorithm that is calibrated block by block, each after those before it.

    Attributes:
        sequential: False, for example by an option, for one calibration of the whole model.
    """

    sequential: bool = True


class Optimizes(Ability):
    """An algorithm that defines the optimizer of learned tensors, instead of Adam at 0.01."""

    @abstractmethod
    def optimizer(self, tensors: Sequence[Tensor]) -> torch.optim.Optimizer:
        """Return an optimizer of all learned tensors.

        Args:
            tensors: the tensors that the algorithm's ``start`` returned, for all targets.
        """


class Penalizes(Ability):
    """An algorithm that adds a penalty to ``session.loss()``."""

    @abstractmethod
    def penalty(self, learned: Sequence[Mapping[str, Tensor]], steps: int) -> Tensor:
        """Return the penalty, a 0-dim tensor.

        Args:
            learned: the learned tensors of each target, by name; empty mappings for a pruner
                without `Learns`, and for a quantizer only targets that already learn something.
            steps: optimizer steps since the stage began.
        """
