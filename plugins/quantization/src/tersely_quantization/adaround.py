"""Up or down: rounding that is learned for each weight."""

from __future__ import annotations

import torch
from torch import Tensor

import tersely
from tersely.contracts import ObservesInputs, Sequential, SolvesWeights
from tersely_quantization.rounding import grids_of
from tersely_quantization.search import search_by_square
from tersely_quantization.up_or_down import Course, learn_rounding
from tersely_quantization.weighed import as_stored, check_integers, observe_gram, weigh


class AdaRound(ObservesInputs, Sequential, SolvesWeights):
    """Learns for each weight whether it is rounded up or down.

    Nagel et al., "Up or Down? Adaptive Rounding for Post-Training Quantization", ICML 2020,
    equations 21 to 24 with a linear activation: Adam on a rectified sigmoid, under a regulariser
    that is annealed until it is 0 or 1. Departs from it: the error is the exact sum over all
    inputs, by their products, so that no input is kept; it counts in steps of a row and mean
    lengths of inputs; ranges are searched for the least squared error, each times the squared
    length of its input; a row that nearest rounding serves better is rounded to nearest; weights
    that are zero stay zero, as they may be masked.

    Args:
        iterations: steps of Adam.
        learning_rate: of Adam; ten times the paper's, for twenty times fewer iterations.
        warm_up: the share of the iterations without regulariser, in [0, 1].
        regularization: what multiplies the regulariser, next to errors in steps squared.
        sequential: whether each block of the model sees what the quantized blocks before it
            produce, as in the paper, or all of them see the dense model.
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

    def observe_input(
        self, inputs: Tensor, target: tersely.QuantizationTarget
    ) -> dict[str, Tensor]:
        """Return what one call of the module adds to the products of its inputs.

        Args:
            inputs: the module's input.
            target: the weight that multiplies it.

        Returns:
            ``gram``: shape (groups, columns, columns), float, input units squared, sums over
            vectors of x x^T; above the diagonal it means nothing.

        Raises:
            ValueError: the target is no weight of a linear layer or convolution.
        """
        return observe_gram(inputs, target)

    def choose(
        self, low: Tensor, high: Tensor, target: tersely.QuantizationTarget
    ) -> tersely.QParams:
        """Return scale and zero point for an observed range.

        Args:
            low: shape (blocks along each dimension), float, the smallest value seen.
            high: the same shape, the largest value seen.
            target: the tensor to quantize.
        """
        return tersely.choose_qparams(low, high, target)

    def solve(self, target: tersely.QuantizationTarget) -> tersely.QuantizedWeight:
        """Return weights that are rounded up or down as their outputs want it.

        Args:
            target: the weight with what was observed of its input.

        Raises:
            SessionError: there was no calibration.
            ValueError: the target is no weight of a linear layer or convolution, or its type is
                no integer.
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
