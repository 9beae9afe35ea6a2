"""SmoothQuant: outliers of inputs are moved into weights, which makes both easier to quantize."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

import tersely
from tersely.contracts import Equalizes, MergesObservations, SolvesWeights
from tersely_quantization.mapped_range import MapsRange
from tersely_quantization.solving.input_channels import multiply, normalized, per_channel
from tersely_quantization.solving.joint_error import least_error
from tersely_quantization.solving.search import whole_range
from tersely_quantization.solving.weighed import (
    AT_A_TIME,
    ObservesGram,
    as_stored,
    float_tensor,
    observed_by,
)

AUTO = "auto"
# Above 0.9, factors depend almost only on the extreme values of calibration, which differ from
# those of other data: MiniLM's outputs get worse, although its layers agree better in calibration.
_GRID = tuple(step / 20 for step in range(19))
_EXTREMES = {"low": torch.minimum, "high": torch.maximum}


class SmoothQuant(MapsRange, ObservesGram, MergesObservations, Equalizes, SolvesWeights):
    """Moves the range of input channels into the weights that multiply them.

    Xiao et al., "SmoothQuant: Accurate and Efficient Post-Training Quantization for Large Language
    Models", ICML 2023, equation 4: s = max|x|^alpha / max|w|^(1 - alpha) for each input channel.
    Departs from it: s is divided by the geometric mean of its smallest and largest value, so that
    weights keep their magnitude; channels that are always zero, in inputs or weights, keep 1.
    Embeddings multiply no inputs and are rounded to nearest.

    Args:
        alpha: the share of the inputs' range that is moved, from 0 (nothing) to 1 (all); or
            ``auto``, for each input the one of 19 values from 0 to 0.9 with which 8-bit inputs and
            rounded weights change the output least.
    """

    def __init__(self, *, alpha: float | Literal["auto"] = 0.5) -> None:
        self.alpha = alpha

    def observe_input(
        self, inputs: Tensor, target: tersely.QuantizationTarget
    ) -> dict[str, Tensor]:
        """Return the range of each input channel in one call of the module.

        Args:
            inputs: the module's input.
            target: the weight that multiplies it.

        Returns:
            ``low`` and ``high``: shape (inputs,), float. With ``auto`` also ``gram``: shape
            (groups, columns, columns), sums of x x^T, undefined above the diagonal, and ``count``:
            shape (1,), the number of vectors. For an embedding only ``count``. Empty when there are
            no vectors.

        Raises:
            ValueError: the target is not the weight of a linear layer or convolution.
        """
        if isinstance(target.module, nn.Embedding):
            return {"count": torch.full((1,), float(inputs.numel()), device=inputs.device)}
        layout = tersely.matrix_layout(target)
        found: dict[str, Tensor] = {}
        for rows in tersely.input_rows(inputs, target, at_a_time=AT_A_TIME):
            if rows.shape[1]:
                part = {
                    "low": per_channel(rows.amin(1), layout).amin(1),
                    "high": per_channel(rows.amax(1), layout).amax(1),
                }
                if self.alpha == AUTO:
                    part["count"] = rows.new_full((1,), rows.shape[1])
                found = self.merge(found, part) if found else part
        if found and self.alpha == AUTO:
            found |= super().observe_input(inputs, target)
        return found

    def merge(self, before: Mapping[str, Tensor], part: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the union of both ranges, and the sums of both.

        Args:
            before: the statistics so far.
            part: those of one more batch, or of another process.
        """
        return {key: _EXTREMES.get(key, torch.add)(before[key], part[key]) for key in before}

    def input_scales(self, targets: Sequence[tersely.QuantizationTarget]) -> Tensor:
        """Return the factors for weights that read the same input.

        Args:
            targets: the weights with what was observed of their input.

        Returns:
            Shape (inputs,), float.

        Raises:
            SessionError: there was no calibration.
            ValueError: a target is not the weight of a linear layer or convolution.
        """
        low, high = observed_by(targets[0], "low"), observed_by(targets[0], "high")
        inputs = torch.maximum(-low, high).clamp_min(0)
        weights = torch.stack([_largest(target) for target in targets]).amax(0).to(inputs)
        if not isinstance(self.alpha, str):
            return _factors(inputs, weights, self.alpha)
        return least_error(targets, [_factors(inputs, weights, alpha) for alpha in _GRID])

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

    def solve(self, target: tersely.QuantizationTarget) -> tersely.QuantizedWeight | None:
        """Return a weight that does not share its input, multiplied by its factors and rounded.

        Args:
            target: the weight with what was observed of its input.

        Returns:
            None for an embedding, which has no factors.

        Raises:
            SessionError: there was no calibration.
            ValueError: the target is not the weight of a linear layer or convolution.
        """
        if isinstance(target.module, nn.Embedding):
            return None
        return self.solve_scaled(target, self.input_scales([target]))


def _factors(inputs: Tensor, weights: Tensor, alpha: float) -> Tensor:
    """Return factors from the largest magnitudes of inputs and weights, shape (inputs,)."""
    is_alive = (inputs > 0) & (weights > 0)
    scales = inputs.pow(alpha) / weights.pow(1 - alpha)
    return normalized(torch.where(is_alive, scales, 0), is_alive=is_alive)


def _largest(target: tersely.QuantizationTarget) -> Tensor:
    """Return the largest magnitude of a weight in each input channel, shape (inputs,)."""
    layout = tersely.matrix_layout(target)
    matrices = tersely.to_matrices(float_tensor(target), layout)
    return per_channel(torch.maximum(matrices.amax(1), -matrices.amin(1)), layout).amax(1)
