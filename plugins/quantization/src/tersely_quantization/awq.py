"""AWQ: weights of large inputs are rounded in finer steps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

import tersely
from tersely.contracts import Equalizes, Sequential, SolvesWeights
from tersely_quantization.mapped_range import MapsRange
from tersely_quantization.solving.input_channels import (
    multiply,
    normalized,
    per_channel,
    per_column,
)
from tersely_quantization.solving.search import search_by_output, whole_range
from tersely_quantization.solving.weighed import (
    AT_A_TIME,
    ObservesGram,
    Weighed,
    as_stored,
    observed_by,
    output_errors,
    weigh,
)


class Awq(MapsRange, ObservesGram, Sequential, Equalizes, SolvesWeights):
    """Multiplies input channels by a power of the mean magnitude of their inputs.

    Lin et al., "AWQ: Activation-aware Weight Quantization for On-Device LLM Compression and
    Acceleration", MLSys 2024, equations 4 and 5: s = mean|x|^alpha, with the alpha in [0, 1] whose
    outputs are closest; then the range of each block is clipped if that reduces the error. Departs
    from it: both errors are exact sums over all inputs, from their products, rather than over a
    sample; s is divided by the geometric mean of its smallest and largest value.

    Args:
        grid: the number of alphas to try, evenly spaced from 0 to 1.
        clip: whether to clip the range of each block if that reduces the error.
        sequential: whether each block of the model gets the outputs of the quantized blocks before
            it, or those of the dense model, as in the paper.
    """

    def __init__(self, *, grid: int = 20, clip: bool = True, sequential: bool = False) -> None:
        self.grid = grid
        self.clip = clip
        self.sequential = sequential

    def observe_input(
        self, inputs: Tensor, target: tersely.QuantizationTarget
    ) -> dict[str, Tensor]:
        """Return what one call of the module adds to the magnitudes and products of its inputs.

        Args:
            inputs: the module's input.
            target: the weight that multiplies it.

        Returns:
            ``gram``: shape (groups, columns, columns), input units squared, sums of x x^T,
            undefined above the diagonal. ``magnitude``: shape (groups, columns), input units, sums
            of |x|. Empty when there are no vectors.

        Raises:
            ValueError: the target is not the weight of a linear layer or convolution.
        """
        found = super().observe_input(inputs, target)
        if found:
            rows = tersely.input_rows(inputs, target, at_a_time=AT_A_TIME)
            found["magnitude"] = torch.stack([part.abs().sum(1) for part in rows]).sum(0)
        return found

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
        problems = [weigh(target) for target in targets]
        magnitude = per_channel(observed_by(targets[0], "magnitude"), problems[0].layout).sum(1)
        best, least = torch.ones_like(magnitude), float("inf")
        for step in range(self.grid):
            scales = normalized(magnitude.pow(step / max(self.grid - 1, 1)), is_alive=magnitude > 0)
            error = sum(
                _error(target, problem, scales)
                for target, problem in zip(targets, problems, strict=True)
            )
            if error < least:
                best, least = scales, error
        return best

    def solve_scaled(
        self, target: tersely.QuantizationTarget, input_scale: Tensor
    ) -> tersely.QuantizedWeight:
        """Return a weight times its factors, rounded to nearest.

        Args:
            target: the weight with what was observed of its input.
            input_scale: shape (inputs,).

        Raises:
            SessionError: there was no calibration.
            ValueError: the target is not the weight of a linear layer or convolution.
        """
        scaled = multiply(target, input_scale)
        if self.clip:
            problem = weigh(target)
            factors = per_column(
                input_scale.to(scaled.dtype), problem.layout, problem.weights.shape[-1]
            )
            grams = problem.grams / (factors[:, None] * factors[:, :, None])
            qparams = search_by_output(scaled, target, layout=problem.layout, grams=grams)
        else:
            qparams = whole_range(scaled, target)
        rounded = tersely.fake_quantize(scaled, qparams)
        return tersely.QuantizedWeight(as_stored(rounded, target), qparams, input_scale)

    def solve(self, target: tersely.QuantizationTarget) -> tersely.QuantizedWeight:
        """Return a weight that does not share its input, multiplied by its factors and rounded.

        Args:
            target: the weight with what was observed of its input.

        Raises:
            SessionError: there was no calibration.
            ValueError: the target is not the weight of a linear layer or convolution.
        """
        return self.solve_scaled(target, self.input_scales([target]))


def _error(target: tersely.QuantizationTarget, problem: Weighed, scales: Tensor) -> float:
    """Return the output error of rounding a weight times these factors, tr(D H D^T)."""
    scaled = multiply(target, scales)
    rounded = tersely.fake_quantize(scaled, whole_range(scaled, target))
    factors = per_column(scales.to(scaled.dtype), problem.layout, problem.weights.shape[-1])
    change = tersely.to_matrices(rounded, problem.layout) / factors[:, None] - problem.weights
    return float(output_errors(change, problem.grams).sum())
