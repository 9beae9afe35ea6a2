"""Quantizers that change weights, or that compensate for the effect of rounding on outputs."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import attrs
from torch import Tensor

from tersely.arithmetic.qparams import QParams
from tersely.contracts.abilities import Ability
from tersely.contracts.quantizer import QuantizationTarget


@attrs.frozen(eq=False)
class QuantizedWeight:
    """The result of a quantizer that changes weights, for one target.

    Attributes:
        tensor: the new values, the target's shape, on the grid of ``qparams``.
        qparams: scale and zero point.
        input_scale: None, or one factor for each input channel, shape (inputs,): ``tensor`` is for
            inputs that are divided by it.
        levels: None, or the table of levels that `UsesLevels` allows, shape (levels,), float,
            ascending, in units of the scale; ``qparams`` may have it instead.
    """

    tensor: Tensor
    qparams: QParams
    input_scale: Tensor | None = None
    levels: Tensor | None = None


class SolvesWeights(Ability):
    """A quantizer that changes weights to keep outputs close.

    With `ObservesInputs` it observes the inputs of the target's module in calibration, and with
    `Sequential` block by block.
    """

    @abstractmethod
    def solve(self, target: QuantizationTarget) -> QuantizedWeight | None:
        """Return new values and their parameters, or None to quantize the values unchanged.

        Args:
            target: the target with its tensor, statistics and observations, which must not be
                modified.

        Raises:
            ValueError: the target is unsuitable; the text says what to do.
        """


class ChangesAfterStep(Ability):
    """A quantizer that changes parameters whenever the user calls ``session.step()``."""

    @abstractmethod
    def after_step(self, tensor: Tensor, target: QuantizationTarget) -> None:
        """Change a parameter after the optimizer's step.

        Runs without gradients.

        Args:
            tensor: the raw parameter, the user's own, changed in place.
            target: the target; its ``tensor`` is None.
        """


class CorrectsBias(Ability):
    """A quantizer that corrects the bias for the mean error of rounding a weight.

    It observes the inputs of the weight's module with `ObservesInputs`.
    """

    @abstractmethod
    def bias_correction(self, target: QuantizationTarget, quantized: Tensor) -> Tensor:
        """Return the correction to add to the bias of the target's module.

        Args:
            target: the weight before quantization, masked, with its observations.
            quantized: the quantized weight, the target's shape.

        Returns:
            Shape (outputs,), the tensor's dtype, output units.
        """


class Equalizes(Ability):
    """A quantizer that multiplies weights by a factor for each input channel.

    The inputs are divided by it, so that without rounding nothing changes. Targets that read the
    same input share the factors.
    """

    @abstractmethod
    def input_scales(self, targets: Sequence[QuantizationTarget]) -> Tensor:
        """Return the factors for targets that read the same input.

        Args:
            targets: weights with their tensors and observations, at least one; they must not be
                modified.

        Returns:
            Shape (inputs,), float, positive and finite.
        """

    @abstractmethod
    def solve_scaled(self, target: QuantizationTarget, input_scale: Tensor) -> QuantizedWeight:
        """Return one target times its factors, with its parameters.

        Args:
            target: the weight with its tensor, not yet multiplied, and its observations.
            input_scale: the result of `input_scales`.
        """
