"""A weight as matrices, with the products of its inputs.

Rounding errors D are weighted by their effect on the output: tr(D H D^T) with H = X^T X.
"""

from __future__ import annotations

import attrs
import torch
from torch import Tensor

import tersely
from tersely.contracts import ObservesInputs

# Inputs of convolutions are copied to rows, 16 MiB at a time.
AT_A_TIME = 1 << 22


@attrs.frozen(eq=False)
class Weighed:
    """A target as a stack of matrices, each with the products of its inputs.

    Attributes:
        tensor: the target's values and shape; float32, or float64 if the target is. It may be the
            user's, so it is read only.
        layout: how it is arranged as matrices.
        weights: shape (groups, rows, columns), the same values.
        grams: H, shape (groups, columns, columns), symmetric, the same dtype.
    """

    tensor: Tensor
    layout: tersely.Layout
    weights: Tensor
    grams: Tensor

    def spread(self, columns: Tensor) -> Tensor:
        """Return the value of each element's column.

        Args:
            columns: shape (groups, columns).

        Returns:
            The target's shape.
        """
        matrices = columns[:, None].expand_as(self.weights)
        return tersely.from_matrices(matrices, self.layout, self.tensor.shape)

    def lengths(self) -> Tensor:
        """Return the squared norm of each column's input, shape (groups, columns)."""
        return self.grams.diagonal(dim1=1, dim2=2)


class ObservesGram(ObservesInputs):
    """Observes the products of a weight's inputs."""

    def observe_input(
        self, inputs: Tensor, target: tersely.QuantizationTarget
    ) -> dict[str, Tensor]:
        """Return what one call of the module adds to the products of its inputs.

        Args:
            inputs: the module's input.
            target: the weight that multiplies it.

        Returns:
            ``gram``: shape (groups, columns, columns), float, input units squared, sums over
            vectors of x x^T, undefined above the diagonal. Empty if there are no vectors.

        Raises:
            ValueError: the target is not the weight of a linear layer or convolution.
        """
        total: Tensor | None = None
        for rows in tersely.input_rows(inputs, target, at_a_time=AT_A_TIME):
            if total is None:
                total = rows.new_zeros(len(rows), rows.shape[-1], rows.shape[-1])
            tersely.add_gram(total, rows)
        return {} if total is None else {"gram": total}


def weigh(target: tersely.QuantizationTarget) -> Weighed:
    """Return a target as matrices with the products of their inputs.

    Args:
        target: the weight with its observations.

    Raises:
        SessionError: there was no calibration.
        ValueError: the target is not the weight of a linear layer or convolution.
    """
    tensor = float_tensor(target)
    layout = tersely.matrix_layout(target)
    grams = tersely.mirror_gram(observed_by(target, "gram"))
    return Weighed(tensor, layout, tersely.to_matrices(tensor, layout), grams.to(tensor.dtype))


def float_tensor(target: tersely.QuantizationTarget) -> Tensor:
    """Return a target's values as float32, or float64 if they are.

    Args:
        target: a parameter or buffer.

    Raises:
        ValueError: the target is an input or output.
    """
    if target.tensor is None:
        raise ValueError(
            f"{target.plan.algorithm} changes weights, and {target.plan.target} is not one; leave "
            "it out of target_names"
        )
    tensor = target.tensor.detach()
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def as_stored(tensor: Tensor, target: tersely.QuantizationTarget) -> Tensor:
    """Return new values in the dtype of a target.

    Args:
        tensor: the target's shape, float.
        target: the target.
    """
    return tensor if target.tensor is None else tensor.to(target.tensor.dtype)


def check_integers(target: tersely.QuantizationTarget) -> None:
    """Refuse types without equal steps.

    Args:
        target: the target.

    Raises:
        ValueError: the target's type is not an integer type.
    """
    if target.dtype.startswith("float"):
        raise ValueError(
            f"{target.plan.algorithm} rounds to integers and {target.dtype} is none; write "
            f"quant_dtype: int8, or algorithm: ptq, which takes {target.dtype}"
        )


def observed_by(target: tersely.QuantizationTarget, key: str) -> Tensor:
    """Return one of the observations of calibration.

    Args:
        target: the target.
        key: its name.

    Raises:
        SessionError: there was no calibration.
    """
    if key not in target.observed:
        raise tersely.SessionError(
            f"{target.name}: {target.plan.algorithm} chooses by what calibration sees; call "
            "session.calibrate(batches) before session.compress()",
            **target.plan.place,
        )
    return target.observed[key]


def output_errors(difference: Tensor, gram: Tensor) -> Tensor:
    """Return the output error of a change of each row: d H d^T, summed over vectors.

    Args:
        difference: D, shape (..., rows, columns), weight units.
        gram: H, shape (..., columns, columns), symmetric.

    Returns:
        Shape (..., rows), output units squared.
    """
    return (difference @ gram).mul_(difference).sum(-1)
