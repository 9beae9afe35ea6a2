"""The output error of factors of inputs when both weights and inputs are rounded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

import tersely
from tersely_quantization.solving.input_channels import multiply, per_column
from tersely_quantization.solving.search import whole_range
from tersely_quantization.solving.weighed import Weighed, observed_by, output_errors, weigh

_STEPS: Final = 255
_VARIANCE: Final = 1 / 12
"""The variance of an error that is uniform over a step, in squared steps."""


def least_error(
    targets: Sequence[tersely.QuantizationTarget], candidates: Sequence[Tensor]
) -> Tensor:
    """Return the factors with the least expected squared error of outputs; the first among equals.

    The error of the weights is the exact sum over all inputs, tr(D H D^T). Inputs are assumed to be
    rounded to 8 bits with one range; errors of columns are independent, with the variance of a
    uniform error within a step, or of the value itself if that is smaller, as in a column that
    mostly rounds to zero.

    Args:
        targets: the weights, with ``low``, ``high``, ``gram`` and ``count`` observed for their
            input.
        candidates: factors, each of shape (inputs,): weights are multiplied and inputs divided by
            them.
    """
    problems = [(target, weigh(target)) for target in targets]
    return min(candidates, key=lambda scales: joint_error(problems, scales))


def joint_error(
    problems: Sequence[tuple[tersely.QuantizationTarget, Weighed]], scales: Tensor
) -> float:
    """Return the expected squared error of the outputs of weights that read the same input.

    Args:
        problems: the weights, as `least_error` takes them, and the same as matrices.
        scales: factors of the input, shape (inputs,).

    Returns:
        Output units squared, summed over outputs and vectors.
    """
    targets = [target for target, _ in problems]
    low = observed_by(targets[0], "low") / scales
    high = observed_by(targets[0], "high") / scales
    step = (high.amax().clamp_min(0) - low.amin().clamp_max(0)) / _STEPS
    count = float(observed_by(targets[0], "count"))
    total = 0.0
    for target, problem in problems:
        factors = per_column(scales.to(problem.weights), problem.layout, problem.weights.shape[-1])
        scaled = multiply(target, scales)
        rounded = tersely.fake_quantize(scaled, whole_range(scaled, target))
        found = tersely.to_matrices(rounded, problem.layout) / factors[:, None]
        total += float(output_errors(found - problem.weights, problem.grams).sum())
        errors = torch.minimum(
            count * _VARIANCE * (step.to(factors) * factors).square(), problem.lengths()
        )
        total += float((errors * found.square().sum(1)).sum())
    return total
