"""AdaRound: rounding up or down, learned for each weight."""

from __future__ import annotations

import torch

import tersely
from tersely.contracts import Sequential, SolvesWeights
from tersely_quantization.mapped_range import MapsRange
from tersely_quantization.solving.rounding import grids_of
from tersely_quantization.solving.search import search_by_square
from tersely_quantization.solving.up_or_down import Course, learn_rounding
from tersely_quantization.solving.weighed import ObservesGram, as_stored, check_integers, weigh


class AdaRound(MapsRange, ObservesGram, Sequential, SolvesWeights):
    """Learns for each weight whether to round it up or down.

    Nagel et al., "Up or Down? Adaptive Rounding for Post-Training Quantization", ICML 2020,
    equations 21 to 24 with a linear activation: Adam on a rectified sigmoid with a regularizer that
    is annealed until it is 0 or 1. Departs from it: the error is the exact sum over all inputs,
    from their products, so that no inputs are stored; it is measured in steps of a row and mean
    norms of inputs; ranges minimize the squared error, weighted by the squared norm of inputs; rows
    for which nearest rounding is better are rounded to nearest; weights that are zero stay zero,
    since they may be masked.

    Args:
        iterations: the steps of Adam.
        learning_rate: that of Adam; ten times the paper's, for twenty times fewer iterations.
        warm_up: the share of the iterations without regularizer, in [0, 1].
        regularization: the factor of the regularizer, relative to errors in squared steps.
        sequential: whether each block of the model gets the outputs of the quantized blocks before
            it, as in the paper, or those of the dense model.
    """

    def __init__(
        self,
        *,
        iterations: int = 500,
        learning_rate: float = 0.1,
        warm_up: float = 0.2,
        regularization: float = 1.0,
        sequential: bool = True,
    ) -> None:
        self.course = Course(iterations, learning_rate, warm_up, regularization)
        self.sequential = sequential

    def solve(self, target: tersely.QuantizationTarget) -> tersely.QuantizedWeight:
        """Return weights that are rounded up or down to keep their outputs close.

        Args:
            target: the weight with what was observed of its input.

        Raises:
            SessionError: there was no calibration.
            ValueError: the target is not the weight of a linear layer or convolution, or its type
                is not an integer type.
        """
        check_integers(target)
        problem = weigh(target)
        qparams = search_by_square(
            problem.tensor, target, importance=problem.spread(problem.lengths())
        )
        grids = grids_of(qparams, problem.layout, problem.tensor.shape, problem.tensor.dtype)
        solved = torch.stack(
            [
                learn_rounding(weight, gram, grid, self.course)
                for weight, gram, grid in zip(problem.weights, problem.grams, grids, strict=True)
            ]
        )
        rounded = tersely.from_matrices(solved, problem.layout, problem.tensor.shape)
        return tersely.QuantizedWeight(as_stored(rounded, target), qparams)
