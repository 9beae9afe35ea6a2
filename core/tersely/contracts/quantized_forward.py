"""Quantizers that say themselves what forward computes with, and what of it is learned."""

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
            target: what is quantized; ``tensor`` is None.

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
            target: what is quantized.

        Returns:
            Integers of ``value``'s shape and the parameters with which
            ``(integers - zero_point) * scale`` is what `simulate` returns, exactly.
        """


class LearnsScales(Ability):
    """A quantizer that learns scales, or zero points too, while the user trains."""

    @abstractmethod
    def start(self, qparams: QParams, target: QuantizationTarget) -> Mapping[str, Tensor]:
        """Return the initial values of what is learned, float, by name.

        Args:
            qparams: what `choose` chose for the observed range.
            target: the target with its statistics; a parameter's with its tensor.
        """

    @abstractmethod
    def meaning(self, qparams: QParams, learned: Mapping[str, Tensor]) -> QParams:
        """Return the parameters that what is learned stands for.

        The scale is positive and finite and the zero point an integer in the range, whatever the
        optimizer did.

        Args:
            qparams: as in `start`.
            learned: what is learned, as it is now.
        """

    @abstractmethod
    def learned_values(
        self,
        value: Tensor,
        qparams: QParams,
        learned: Mapping[str, Tensor],
        target: QuantizationTarget,
    ) -> Tensor:
        """Return the values that forward computes with; gradients reach what is learned.

        Runs in every forward, also under ``torch.compile``. Its values are those of
        `tersely.fake_quantize` with `meaning`.

        Args:
            value: the tensor, masked, any float dtype.
            qparams: as in `start`.
            learned: what is learned.
            target: what is quantized; ``tensor`` is None.
        """


class RoundsAtRandom(Ability):
    """A quantizer that rounds at random while the model trains.

    That is in training mode with gradients recorded. Everywhere else (evaluation, calibration,
    integers, exports, after finalizing) a value is what `tersely.fake_quantize` makes of it.

    Attributes:
        seed: what the random numbers start from.
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
            target: what is quantized; ``tensor`` is None.
            generator: on the value's device; made for each call from the seed, the target's
                name and the number of its calls, which is saved with the session. A forward that
                is computed again in backward gets the numbers of the last call again.

        Returns:
            ``value``'s shape and dtype.
        """


class OptimizesByName(Ability):
    """A quantizer that moves what it learns under one name unlike what it learns under another."""

    @abstractmethod
    def named_optimizer(self, tensors: Mapping[str, Sequence[Tensor]]) -> torch.optim.Optimizer:
        """Return an optimizer of everything that is learned.

        Args:
            tensors: name -> what the algorithm's ``start`` returned under it, for all targets;
                sorted by name.
        """


class ClipsGradients(Ability):
    """A quantizer that passes no gradient where a value was clamped.

    Attributes:
        clip_gradient: False, perhaps by an option, where the gradient passes.
    """

    clip_gradient: bool = True
