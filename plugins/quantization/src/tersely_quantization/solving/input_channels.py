"""Factors of input channels, by which weights are multiplied and inputs divided."""

from __future__ import annotations

import torch
from torch import Tensor

import tersely
from tersely_quantization.solving.weighed import float_tensor

_TINY = 1e-5


def per_channel(columns: Tensor, layout: tersely.Layout) -> Tensor:
    """View values of columns by their input channel.

    Args:
        columns: shape (groups, columns).
        layout: how the weight is arranged as matrices with these columns.

    Returns:
        Shape (inputs, columns of one input).
    """
    inputs = layout.split[layout.order[-1]]
    return columns.reshape(layout.split[0], -1, inputs).movedim(1, 2).flatten(0, 1)


def per_column(channels: Tensor, layout: tersely.Layout, columns: int) -> Tensor:
    """Return the value of each column's input channel.

    Args:
        channels: shape (inputs,).
        layout: how the weight is arranged as matrices.
        columns: the number of columns of each matrix.

    Returns:
        Shape (groups, columns).
    """
    groups, inputs = layout.split[0], layout.split[layout.order[-1]]
    one = channels.reshape(groups, 1, inputs)
    return one.expand(groups, columns // max(inputs, 1), inputs).reshape(groups, columns)


def multiply(target: tersely.QuantizationTarget, input_scale: Tensor) -> Tensor:
    """Return a weight times the factors of its input channels.

    Args:
        target: the weight.
        input_scale: shape (inputs,).

    Returns:
        The target's shape; float32, or float64 if the target is.

    Raises:
        ValueError: the target is not the weight of a linear layer or convolution.
    """
    tensor = float_tensor(target)
    layout = tersely.matrix_layout(target)
    matrices = tersely.to_matrices(tensor, layout)
    factors = per_column(input_scale.to(tensor.dtype), layout, matrices.shape[-1])
    return tersely.from_matrices(matrices * factors[:, None], layout, tensor.shape)


def normalized(scales: Tensor, *, is_alive: Tensor) -> Tensor:
    """Return factors divided by the geometric mean of the smallest and the largest.

    Args:
        scales: shape (inputs,), float, not negative.
        is_alive: bool, shape (inputs,); other channels are always zero and get 1.
    """
    if not bool(is_alive.any()):
        return torch.ones_like(scales)
    kept = scales[is_alive].clamp_min(_TINY * float(scales.max()))
    found = torch.ones_like(scales)
    found[is_alive] = kept / (kept.min() * kept.max()).sqrt()
    return found
