"""Rounding with a weight update: columns to come make up for the error of each."""

from __future__ import annotations

import torch
from torch import Tensor

import tersely
from tersely.contracts import Sequential, SolvesWeights
from tersely_quantization.mapped_range import MapsRange
from tersely_quantization.rounding import grids_of, round_columns
from tersely_quantization.search import search_by_square, whole_range
from tersely_quantization.weighed import ObservesGram, as_stored, check_integers, weigh


class Gptq(MapsRange, ObservesGram, Sequential, SolvesWeights):
    """Rounds columns one after the other and updates those to come.

    Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained
    Transformers", ICLR 2023, algorithm 1 with the Cholesky factor of the inverse Hessian of section
    3.3. Departs from the paper: columns with large inputs go first, and the scales are those of the
    weight before any update, so that they belong to the columns as they lie (``act_order`` and
    ``static_groups`` of its authors' code); ranges are searched for the least squared error, each
    over the squared diagonal of that factor, as it adds to that of the output; weights that are
    zero stay zero, as they may be masked; grouped convolutions are solved group by group; a
    transposed convolution as if its outputs did not overlap.

    Args:
        percdamp: what is added to the diagonal of the Hessian, as a share of its mean.
        block_size: columns after which all columns to come are updated; speed alone depends on it.
        act_order: whether columns are taken by the length of their inputs, the largest first, or
            as they lie.
        search: whether smaller ranges than the whole are tried for each block.
        sequential: whether each block of the model sees what the quantized blocks before it
            produce, or all of them see the dense model.
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
        """Return rounded weights that make up for each other's errors.

        Args:
            target: the weight with what was observed of its input.

        Raises:
            SessionError: there was no calibration.
            ValueError: the target is no weight of a linear layer or convolution, its type is no
                integer, or its Hessian is singular.
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
