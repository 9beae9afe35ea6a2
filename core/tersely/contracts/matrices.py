"""Weights as matrices and inputs as the rows they multiply, for linear layers and convolutions."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from tersely.contracts.pruner import PruningTarget
from tersely.contracts.quantizer import QuantizationTarget

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_MATRIX_RANK = 2

Target: TypeAlias = PruningTarget | QuantizationTarget


class Layout(NamedTuple):
    """The arrangement of a weight as a stack of matrices, one for each group of a convolution.

    The columns of a convolution's matrix are its kernel positions and, innermost, its input
    channels, so that neighbours along the input dimension are neighbouring columns.

    Attributes:
        split: the weight's shape with its groups apart.
        order: dimensions of ``split``: the groups, those of the rows, those of the columns.
        rows: the number of rows of each matrix.
    """

    split: tuple[int, ...]
    order: tuple[int, ...]
    rows: int


def matrix_layout(target: Target) -> Layout:
    """Return the arrangement of a target as a stack of matrices.

    Args:
        target: the weight of a linear layer, a convolution or a transposed convolution, or the
            matrix of one expert.

    Raises:
        ValueError: the target is something else.
    """
    module, shape = target.module, _shape_of(target)
    if target.plan.target == "weight" or target.plan.expert is not None:
        if isinstance(module, _CONVOLUTIONS):
            kernel = range(3, len(shape) + 1)
            split = (module.groups, shape[0] // module.groups, *shape[1:])
            return Layout(split, (0, 1, *kernel, 2), split[1])
        if isinstance(module, _TRANSPOSED):
            split = (module.groups, shape[0] // module.groups, *shape[1:])
            return Layout(split, (0, *range(2, len(split)), 1), math.prod(shape[1:]))
        if len(shape) == _MATRIX_RANK and not isinstance(module, nn.Embedding):
            outputs, inputs = target.plan.output_dim, target.plan.input_dim
            return Layout((1, *shape), (0, 1 + outputs, 1 + inputs), shape[outputs])
    raise ValueError(
        f"{target.plan.algorithm} compares a weight with the inputs that it multiplies, which "
        f"only the weights of linear layers and convolutions have; found {target.plan.target} of "
        f"shape {list(shape)} in {target.plan.module_type or type(module).__name__}; leave it out"
    )


def _shape_of(target: Target) -> tuple[int, ...]:
    return (target.plan.shape or ()) if target.tensor is None else tuple(target.tensor.shape)


def to_matrices(tensor: Tensor, layout: Layout) -> Tensor:
    """Rearrange a tensor as matrices.

    Args:
        tensor: the target's shape.
        layout: the arrangement.

    Returns:
        Shape (groups, rows, columns), a view if the layout allows it.
    """
    ordered = tensor.reshape(layout.split).permute(layout.order)
    return ordered.reshape(layout.split[0], layout.rows, -1)


def from_matrices(matrices: Tensor, layout: Layout, shape: Sequence[int]) -> Tensor:
    """Undo `to_matrices`.

    Args:
        matrices: shape (groups, rows, columns).
        layout: as for `to_matrices`.
        shape: the target's shape.
    """
    order = layout.order
    back = [order.index(dim) for dim in range(len(order))]
    ordered = matrices.reshape([layout.split[dim] for dim in order])
    return ordered.permute(back).reshape(tuple(shape))


def input_rows(inputs: Tensor, target: Target, *, at_a_time: int) -> Iterator[Tensor]:
    """Yield the vectors that the columns of a target's matrices multiply, some at a time.

    Args:
        inputs: the module's input; read only.
        target: the target.
        at_a_time: the most elements to hold, unless a single sample has more.

    Yields:
        Shape (groups, vectors, columns); float32, or float64 if the inputs are. It may be a view of
        ``inputs``, so it is read only.

    Raises:
        ValueError: the target has no such vectors, or the inputs are not those of its module.
    """
    layout = matrix_layout(target)
    columns = math.prod(layout.split) // max(layout.split[0] * layout.rows, 1)
    rows = _as_rows(inputs, target, columns)
    per_sample = max(rows[:, :1].numel(), 1)
    count = max(at_a_time // per_sample, 1)
    dtype = torch.float64 if inputs.dtype == torch.float64 else torch.float32
    for part in torch.split(rows, count, 1):
        yield part.to(dtype).reshape(layout.split[0], -1, columns)


def _as_rows(inputs: Tensor, target: Target, columns: int) -> Tensor:
    module = target.module
    if not inputs.is_floating_point():
        raise ValueError(f"the inputs of its module are {inputs.dtype}; expected floating point")
    if isinstance(module, (*_CONVOLUTIONS, *_TRANSPOSED)):
        rank = len(module.kernel_size)
        if inputs.ndim == rank + 1:
            inputs = inputs[None]
        windows = inputs if isinstance(module, _TRANSPOSED) else _windows(inputs, module)
        shape = (windows.shape[0], module.groups, -1, *windows.shape[2:])
        groups = windows.reshape(shape).movedim(1, 0)
        return groups.movedim(2, -1)
    if inputs.shape[-1] != columns:
        raise ValueError(
            f"the inputs of its module have {inputs.shape[-1]} features and the weight takes "
            f"{columns}, along dimension {target.plan.input_dim}; where the weight is transposed, "
            "say so with tersely.register_module_setting"
        )
    return inputs.reshape(1, -1, columns)


def _windows(inputs: Tensor, module: nn.Conv1d | nn.Conv2d | nn.Conv3d) -> Tensor:
    """Return each position's inputs: shape (batch, channels, positions..., kernel...)."""
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    windows = functional.pad(inputs, _padding(module), mode=mode)
    sizes = zip(module.kernel_size, module.dilation, module.stride, strict=True)
    for dim, (size, dilation, stride) in enumerate(sizes, 2):
        windows = windows.unfold(dim, dilation * (size - 1) + 1, stride)[..., ::dilation]
    return windows


def _padding(module: nn.Conv1d | nn.Conv2d | nn.Conv3d) -> list[int]:
    padding: list[int] = []
    for dim in reversed(range(len(module.kernel_size))):
        if module.padding == "valid":
            padding += [0, 0]
        elif module.padding == "same":
            total = module.dilation[dim] * (module.kernel_size[dim] - 1)
            padding += [total // 2, total - total // 2]
        else:
            padding += [int(module.padding[dim])] * 2
    return padding
