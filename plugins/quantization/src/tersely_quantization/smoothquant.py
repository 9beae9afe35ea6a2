"""Inputs with outliers and weights without: both become easier to quantize when they meet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

import tersely
from tersely.contracts import Equalizes, MergesObservations, ObservesInputs, SolvesWeights
from tersely_quantization.input_channels import multiply, normalized, per_channel
from tersely_quantization.mapped_range import MapsRange
from tersely_quantization.search import whole_range
from tersely_quantization.weighed import AT_A_TIME, as_stored, float_tensor, observed_by


class SmoothQuant(MapsRange, ObservesInputs, MergesObservations, Equalizes, SolvesWeights):
    """Moves the range of input channels into the weights that multiply them.

    Xiao et al., "SmoothQuant: Accurate and Efficient Post-Training Quantization for Large Language
    Models", ICML 2023, equation 4: s = max|x|^alpha / max|w|^(1 - alpha) for each input channel.
    Departs from it: s is divided by the mean of its smallest and largest, as a ratio, so that the
    whole of a weight keeps its size; channels that are always zero, on either side, keep 1.

    Args:
        alpha: how much of the inputs' range moves: 0 none of it, 1 all.
    """

    def __init__(self, *, alpha: float = 0.5) -> None:
        self.alpha = alpha

    def observe_input(
        self, inputs: Tensor, target: tersely.QuantizationTarget
    ) -> dict[str, Tensor]:
        """Return the range of each input channel in one call of the module.

        Args:
            inputs: the module's input.
            target: the weight that multiplies it.

        Returns:
            ``low`` and ``high``: shape (inputs,), float; empty when there are no vectors.

        Raises:
            ValueError: the target is no weight of a linear layer or convolution.
        """
        layout = tersely.matrix_layout(target)
        found: Mapping[str, Tensor] = {}
        for rows in tersely.input_rows(inputs, target, at_a_time=AT_A_TIME):
            if rows.shape[1]:
                part = {
                    "low": per_channel(rows.amin(1), layout).amin(1),
                    "high": per_channel(rows.amax(1), layout).amax(1),
                }
                found = self.merge(found, part) if found else part
        return dict(found)

    def merge(self, before: Mapping[str, Tensor], part: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the range that holds both.

        Args:
            before: what was known.
            part: one more batch, or another process.
        """
        return {
            "low": torch.minimum(before["low"], part["low"]),
            "high": torch.maximum(before["high"], part["high"]),
        }

    def input_scales(self, targets: Sequence[tersely.QuantizationTarget]) -> Tensor:
        """Return the factors for weights that read the same input.

        Args:
            targets: the weights with what was observed of their input.

        Returns:
            Shape (inputs,), float.

        Raises:
            SessionError: there was no calibration.
            ValueError: a target is no weight of a linear layer or convolution.
        """
        low, high = observed_by(targets[0], "low"), observed_by(targets[0], "high")
        inputs = torch.maximum(-low, high).clamp_min(0)
        weights = torch.stack([_largest(target) for target in targets]).amax(0).to(inputs)
        is_alive = (inputs > 0) & (weights > 0)
        scales = inputs.pow(self.alpha) / weights.pow(1 - self.alpha)
        return normalized(torch.where(is_alive, scales, 0), is_alive=is_alive)

    def solve_scaled(
        self, target: tersely.QuantizationTarget, input_scale: Tensor
    ) -> tersely.QuantizedWeight:
        """Return a weight times its factors, rounded to nearest.

        Args:
            target: the weight.
            input_scale: shape (inputs,).
        """
        scaled = multiply(target, input_scale)
        qparams = whole_range(scaled, target)
        rounded = tersely.fake_quantize(scaled, qparams)
        return tersely.QuantizedWeight(as_stored(rounded, target), qparams, input_scale)

    def solve(self, target: tersely.QuantizationTarget) -> tersely.QuantizedWeight:
        """Return a weight that shares its input with no other, times its factors and rounded.

        Args:
            target: the weight with what was observed of its input.

        Raises:
            SessionError: there was no calibration.
            ValueError: the target is no weight of a linear layer or convolution.
        """
        return self.solve_scaled(target, self.input_scales([target]))


def _largest(target: tersely.QuantizationTarget) -> Tensor:
    """Return the largest magnitude in a weight for each input channel, shape (inputs,)."""
    layout = tersely.matrix_layout(target)
    matrices = tersely.to_matrices(float_tensor(target), layout)
    return per_channel(torch.maximum(matrices.amax(1), -matrices.amin(1)), layout).amax(1)
