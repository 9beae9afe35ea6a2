"""Quantizers that define the values of forward, and what of them is learned."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from tersely.arithmetic.qparams import QParams
from tersely.contracts.abilities import Ability
from tersely.contracts.quantizer import QuantizationTarget


class Simulates(Ability):
    """A quantizer that computes quantized values in its own way."""

    @abstractmethod
    def simulate(self, value: Tensor, qparams: QParams, target: QuantizationTarget) -> Tensor:
        """Return the values that forward computes with, differentiable.

        Runs in every forward, also under ``torch.compile``: tensor operations only, no branch on
        values.

        Args:
            value: the tensor, masked, any float dtype.
            qparams: scale and zero point in force.
            target: the target; ``tensor`` is None.

        Returns:
            ``value``'s shape and dtype.
        """

    @abstractmethod
    def integers(
        self, value: Tensor, qparams: QParams, target: QuantizationTarget
    ) -> tuple[Tensor, QParams]:
        """Return the integers of simulated values, with their scales and zero points.

        Args:
            value: the tensor, masked.
            qparams: scale and zero point in force.
            target: the target.

        Returns:
            Integers of ``value``'s shape and the parameters with which
            ``(integers - zero_point) * scale`` equals the result of `simulate` exactly.
        """


class LearnsScales(Ability):
    """A quantizer that learns scales, and possibly zero points, while the user trains."""

    @abstractmethod
    def start(self, qparams: QParams, target: QuantizationTarget) -> Mapping[str, Tensor]:
        """Return the initial values of learned tensors, float, by name.

        Args:
            qparams: the result of `choose` for the observed range.
            target: the target with its statistics; a parameter's with its tensor.
        """

    @abstractmethod
    def meaning(self, qparams: QParams, learned: Mapping[str, Tensor]) -> QParams:
        """Return the parameters that correspond to the learned tensors.

        The scale is positive and finite and the zero point an integer in the range, whatever the
        optimizer did.

        Args:
            qparams: as in `start`.
            learned: the present values of the learned tensors.
        """

    @abstractmethod
    def learned_values(
        self,
        value: Tensor,
        qparams: QParams,
        learned: Mapping[str, Tensor],
        target: QuantizationTarget,
    ) -> Tensor:
        """Return the values that forward computes with; gradients reach the learned tensors.

        Runs in every forward, also under ``torch.compile``. Its values are those of
        `tersely.fake_quantize` with `meaning`.

        Args:
            value: the tensor, masked, any float dtype.
            qparams: as in `start`.
            learned: the learned tensors.
            target: the target; ``tensor`` is None.
        """


class RoundsAtRandom(Ability):
    """A quantizer that rounds at random while the model trains.

    That is in training mode with gradients recorded. Everywhere else (evaluation, calibration,
    integers, exports, after finalizing) values are rounded by `tersely.fake_quantize`.

    Attributes:
        seed: the seed of the random numbers.
    """

    seed: int = 0

    @abstractmethod
    def rounded(
        self,
        value: Tensor,
        qparams: QParams,
        target: QuantizationTarget,
        generator: torch.Generator,
    ) -> Tensor:
        """Return the values that a training forward computes with, differentiable.

        Args:
            value: the tensor, masked, any float dtype.
            qparams: scale and zero point in force.
            target: the target; ``tensor`` is None.
            generator: on the value's device; made for each call from the seed, the target's
                name and the number of its calls, which is saved with the session. A forward that is
                recomputed in backward gets the same numbers again.

        Returns:
            ``value``'s shape and dtype.
        """


class OptimizesByName(Ability):
    """A quantizer that optimizes learned tensors differently by their names."""

    @abstractmethod
    def named_optimizer(self, tensors: Mapping[str, Sequence[Tensor]]) -> torch.optim.Optimizer:
        """Return an optimizer of all learned tensors.

        Args:
            tensors: name -> the tensors that the algorithm's ``start`` returned under it, for all
                targets; sorted by name.
        """


class ClipsGradients(Ability):
    """A quantizer that passes no gradient where a value was clamped.

    Attributes:
        clip_gradient: False, for example by an option, to pass the gradient.
    """

    clip_gradient: bool = True
