"""Pruning with a weight update: the remaining weights compensate for masked ones.

Frantar and Alistarh, SparseGPT: Massive Language Models Can Be Accurately Pruned in One-Shot, ICML
2023, algorithm 1: columns from first to last; scores w^2 / diag(L)^2 with the Cholesky factor L of
the inverse Hessian, equation 5; each error is spread over the remaining columns, equation 3.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

import tersely
from tersely.contracts import ObservesInputs, Sequential, Solves
from tersely_pruning.per_block import score_dtype
from tersely_pruning.per_channel import observed_by
from tersely_pruning.surgeon import mask_columns, refine

# Inputs of convolutions are copied to rows, 16 MiB at a time.
_AT_A_TIME = 1 << 22


class SparseGpt(ObservesInputs, Sequential, Solves):
    """Masks columns one after the other and updates the weights that are kept.

    Departs from the paper: some steps of conjugate gradients follow (Meng et al., ALPS, NeurIPS
    2024, section 3.3), since columns are not updated again after later ones; weights of inputs that
    were always zero are masked first, and those that are kept keep their values; grouped
    convolutions are solved group by group, and transposed convolutions as if their outputs did not
    overlap.

    Args:
        percdamp: the number added to the diagonal of the Hessian, as a share of its mean.
        block_size: the number of columns within which a ratio is met, and after which the remaining
            columns are updated.
        refine_steps: steps of conjugate gradients on the kept weights; 0 as in the paper.
        sequential: whether each block of the model gets the outputs of the pruned blocks before it,
            as in the paper, or those of the dense model.
    """

    def __init__(
        self,
        *,
        percdamp: float = 0.01,
        block_size: int = 128,
        refine_steps: int = 4,
        sequential: bool = True,
    ) -> None:
        self.percdamp = percdamp
        self.block_size = block_size
        self.refine_steps = refine_steps
        self.sequential = sequential

    def observe_input(self, inputs: Tensor, target: tersely.PruningTarget) -> dict[str, Tensor]:
        """Return what one call of the module adds to the Hessian.

        Args:
            inputs: the module's input.
            target: the weight that multiplies it.

        Returns:
            ``hessian``: shape (groups, columns, columns), float, input units squared, sums over
            vectors of x x^T; values above the diagonal are undefined.

        Raises:
            ValueError: the target is not the weight of a linear layer or convolution.
        """
        total: Tensor | None = None
        for rows in tersely.input_rows(inputs, target, at_a_time=_AT_A_TIME):
            if total is None:
                total = rows.new_zeros(len(rows), rows.shape[-1], rows.shape[-1])
            tersely.add_gram(total, rows)
        return {} if total is None else {"hessian": total}

    def importance(self, target: tersely.PruningTarget) -> Tensor:
        """Return the error of masking each weight alone, w^2 / diag(H^-1).

        Args:
            target: the tensor to rank.

        Returns:
            The tensor's shape, float, output units squared.

        Raises:
            SessionError: there was no calibration.
            ValueError: the target is not the weight of a linear layer or convolution, or its
                Hessian is singular.
        """
        layout, weights, hessians = _problem(target)
        scores = torch.empty_like(weights)
        for weight, hessian, found in zip(weights, hessians, scores, strict=True):
            factor = tersely.inverse_factor(tersely.damp_gram(hessian, self.percdamp))
            torch.div(weight.square(), factor.square().sum(1), out=found)
        return tersely.from_matrices(scores, layout, target.tensor.shape)

    def solve(self, target: tersely.PruningTarget, choose: tersely.Choose) -> tersely.Solution:
        """Return masks and updated weights.

        Args:
            target: the tensor to prune.
            choose: decides on a run of columns.

        Returns:
            Masks and values; values are 0 where masked.

        Raises:
            SessionError: there was no calibration.
            ValueError: the target is not the weight of a linear layer or convolution, or its
                Hessian is singular.
        """
        layout, weights, hessians = _problem(target)
        block, run = self._columns_at_once(target.blocks)
        kept = torch.empty(weights.shape, dtype=torch.bool, device=weights.device)
        solved = torch.empty_like(weights)
        for group, (weight, known) in enumerate(zip(weights, hessians, strict=True)):
            hessian = tersely.damp_gram(known, self.percdamp)
            kept[group], values = mask_columns(
                weight,
                tersely.inverse_factor(hessian),
                choose,
                is_alive=known.diagonal() > 0,
                block=block,
                run=run,
            )
            solved[group] = refine(
                values, weight, hessian, kept=kept[group], steps=self.refine_steps
            )
        shape, dtype = target.tensor.shape, target.tensor.dtype
        return tersely.Solution(
            tersely.from_matrices(kept, layout, shape),
            tersely.from_matrices(solved, layout, shape).to(dtype),
        )

    def _columns_at_once(self, blocks: tersely.Blocks) -> tuple[int, int]:
        if blocks.keep is None or blocks.scope is None:
            return self.block_size, self.block_size
        run = math.prod(blocks.scope)
        return max(self.block_size // run, 1) * run, run


def _problem(target: tersely.PruningTarget) -> tuple[tersely.Layout, Tensor, Tensor]:
    """Return a target as matrices with the Hessian of each, shape (groups, columns, columns)."""
    layout = tersely.matrix_layout(target)
    hessians = tersely.mirror_gram(observed_by(target)["hessian"])
    weights = tersely.to_matrices(target.tensor.detach().to(score_dtype(target.tensor)), layout)
    return layout, weights, hessians.to(weights.dtype)
