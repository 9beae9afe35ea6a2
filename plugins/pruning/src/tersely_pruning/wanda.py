"""Pruning by weights and activations: small weights of small inputs are pruned first.

Sun, Liu, Bair and Kolter, A Simple and Effective Pruning Approach for Large Language Models, ICLR
2024, equation 1: S_ij = |W_ij| * ||X_j||_2, the norm over all tokens, compared within each row.
"""

from __future__ import annotations

from torch import Tensor

import tersely
from tersely.contracts import ObservesInputs, Sequential
from tersely_pruning.per_block import score_dtype
from tersely_pruning.per_channel import observed_by

# Squares of this many elements stay in cache, without a temporary of the inputs' size.
_AT_A_TIME = 1 << 18


class Wanda(ObservesInputs, Sequential):
    """Ranks weights by magnitude times the norm of their input, by default within each row.

    Departs from the paper: a weight of a convolution has the inputs at its kernel position, one of
    a transposed convolution those of its channel, and a block of several weights ranks by their
    sum.

    Args:
        sequential: whether each block of the model gets the outputs of the pruned blocks before it,
            as in the paper, or those of the dense model.
    """

    def __init__(self, *, sequential: bool = True) -> None:
        self.sequential = sequential

    def observe_input(self, inputs: Tensor, target: tersely.PruningTarget) -> dict[str, Tensor]:
        """Return what one call of the module adds to the squares.

        Args:
            inputs: the module's input.
            target: the weight that multiplies it.

        Returns:
            ``squares``: shape (groups, columns), float, sums over vectors of squared inputs.

        Raises:
            ValueError: the target is not the weight of a linear layer or convolution.
        """
        sums: Tensor | None = None
        for rows in tersely.input_rows(inputs, target, at_a_time=_AT_A_TIME):
            part = rows.square().sum(1)
            sums = part if sums is None else sums.add_(part)
        return {} if sums is None else {"squares": sums}

    def importance(self, target: tersely.PruningTarget) -> Tensor:
        """Return |W| * ||X||_2 of every weight.

        Args:
            target: the tensor to rank.

        Returns:
            The tensor's shape, float, weight units times input units.

        Raises:
            SessionError: there was no calibration.
            ValueError: the target is not the weight of a linear layer or convolution.
        """
        lengths = observed_by(target)["squares"].sqrt()
        layout = tersely.matrix_layout(target)
        magnitudes = tersely.to_matrices(
            target.tensor.detach().abs().to(score_dtype(target.tensor)), layout
        )
        return tersely.from_matrices(magnitudes * lengths[:, None], layout, target.tensor.shape)
