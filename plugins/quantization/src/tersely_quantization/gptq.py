"""GPTQ: rounding with a weight update, in which remaining columns compensate for errors."""

from __future__ import annotations

import torch
from torch import Tensor

import tersely
from tersely.contracts import Sequential, SolvesWeights
from tersely_quantization.mapped_range import MapsRange
from tersely_quantization.solving.rounding import grids_of, round_columns
from tersely_quantization.solving.search import search_by_square, whole_range
from tersely_quantization.solving.weighed import ObservesGram, as_stored, check_integers, weigh


class Gptq(MapsRange, ObservesGram, Sequential, SolvesWeights):
    """Rounds columns one after another and updates the remaining ones.

    Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained
    Transformers", ICLR 2023, algorithm 1 with the Cholesky factor of the inverse Hessian of section
    3.3. Departs from the paper: columns with large inputs are rounded first, and scales are chosen
    before any update, so that they belong to the original order of columns (``act_order`` and
    ``static_groups`` in its authors' code); ranges minimize the squared error divided by the
    squared diagonal of that factor, which is its share in the output's error; weights that are zero
    stay zero, since they may be masked; grouped convolutions are solved group by group, and
    transposed convolutions as if their outputs did not overlap.

    Args:
        percdamp: the number added to the diagonal of the Hessian, as a share of its mean.
        block_size: the number of columns after which all remaining columns are updated; affects
            only speed.
        act_order: whether to round columns in the order of the norms of their inputs, the largest
            first, or in their own order.
        search: whether to try smaller ranges than the whole for each block.
        sequential: whether each block of the model gets the outputs of the quantized blocks before
            it, or those of the dense model.
    """

    def __init__(
        self,
        *,
        percdamp: float = 0.01,
        block_size: int = 128,
        act_order: bool = True,
        search: bool = True,
        sequential: bool = True,
    ) -> None:
        self.percdamp = percdamp
        self.block_size = block_size
        self.act_order = act_order
        self.search = search
        self.sequential = sequential

    def solve(self, target: tersely.QuantizationTarget) -> tersely.QuantizedWeight:
        """Return rounded weights that compensate for each other's errors.

        Args:
            target: the weight with what was observed of its input.

        Raises:
            SessionError: there was no calibration.
            ValueError: the target is not the weight of a linear layer or convolution, its type is
                not an integer type, or its Hessian is singular.
        """
        check_integers(target)
        problem = weigh(target)
        layout, shape = problem.layout, problem.tensor.shape
        orders = [self._order(gram) for gram in problem.grams]
        factors = [
            tersely.inverse_factor(tersely.damp_gram(gram, self.percdamp)[order][:, order])
            for gram, order in zip(problem.grams, orders, strict=True)
        ]
        if self.search:
            lengths = problem.lengths()
            worth = torch.empty_like(lengths)
            for group, (factor, order) in enumerate(zip(factors, orders, strict=True)):
                worth[group, order] = factor.diagonal().square().reciprocal()
            importance = problem.spread(torch.where(lengths > 0, worth, 0))
            qparams = search_by_square(problem.tensor, target, importance=importance)
        else:
            qparams = whole_range(problem.tensor, target)
        grids = grids_of(qparams, layout, shape, problem.tensor.dtype)
        solved = [
            round_columns(weight, factor, grid, order=order, block=self.block_size)
            for weight, factor, grid, order in zip(
                problem.weights, factors, grids, orders, strict=True
            )
        ]
        rounded = tersely.from_matrices(torch.stack(solved), layout, shape)
        return tersely.QuantizedWeight(as_stored(rounded, target), qparams)

    def _order(self, gram: Tensor) -> Tensor:
        lengths = gram.diagonal()
        if not self.act_order:
            return torch.arange(len(lengths), device=lengths.device)
        return lengths.argsort(descending=True, stable=True)
