"""Quantizers that change weights: to round them well, or for what rounding does to outputs."""

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
    """What a quantizer that changes weights found for one target.

    Attributes:
        tensor: the new values, the target's shape; quantized with ``qparams`` and back they are
            what the algorithm computed.
        qparams: scale and zero point.
        input_scale: None, or one factor for each input channel, shape (inputs,): ``tensor`` is in
            terms of inputs that are divided by it.
        levels: None, or the table of levels that `UsesLevels` allows, shape (levels,), float,
            ascending, in units of the scale: what ``qparams`` may hold as well.
    """

    tensor: Tensor
    qparams: QParams
    input_scale: Tensor | None = None
    levels: Tensor | None = None


class SolvesWeights(Ability):
    """A quantizer that changes weights so that what they compute stays close.

    With `ObservesInputs` it sees the inputs of the target's module in calibration, and with
    `Sequential` block by block.
    """

    @abstractmethod
    def solve(self, target: QuantizationTarget) -> QuantizedWeight | None:
        """Return new values and how they are quantized, or None to quantize as they are.

        Args:
            target: the target with its tensor, statistics and observations; nothing of it may be
                modified.

        Raises:
            ValueError: the target does not suit the algorithm; the text says what to do.
        """


class ChangesAfterStep(Ability):
    """A quantizer that changes parameters whenever the user calls ``session.step()``."""

    @abstractmethod
    def after_step(self, tensor: Tensor, target: QuantizationTarget) -> None:
        """Change a parameter that the optimizer has just moved.

        Runs without gradients.

        Args:
            tensor: the raw parameter, the user's own, changed in place.
            target: what is quantized; its ``tensor`` is None.
        """


class CorrectsBias(Ability):
    """A quantizer that makes up, in the bias, for what rounding a weight shifts on average.

    It sees the inputs of the weight's module with `ObservesInputs`.
    """

    @abstractmethod
    def bias_correction(self, target: QuantizationTarget, quantized: Tensor) -> Tensor:
        """Return what is to be added to the bias of the target's module.

        Args:
            target: the weight as it was, masked, with its observations.
            quantized: the weight as it is computed with, the target's shape.

        Returns:
            Shape (outputs,), the tensor's dtype, output units.
        """


class Equalizes(Ability):
    """A quantizer that multiplies weights by a factor for each input channel.

    The inputs are divided by it, so that without rounding nothing changes. Targets that multiply
    one and the same input have to share the factors.
    """

    @abstractmethod
    def input_scales(self, targets: Sequence[QuantizationTarget]) -> Tensor:
        """Return the factors for targets that read the same input.

        Args:
            targets: weights with their tensors and observations, at least one; nothing of them
                may be modified.

        Returns:
            Shape (inputs,), float, positive and finite.
        """

    @abstractmethod
    def solve_scaled(self, target: QuantizationTarget, input_scale: Tensor) -> QuantizedWeight:
        """Return one target times its factors, and how it is quantized.

        Args:
            target: the weight with its tensor, not yet multiplied, and its observations.
            input_scale: what `input_scales` returned.
        """
