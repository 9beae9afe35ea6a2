"""Which elements of an activation belong to positions that are data, by its shape alone."""

from __future__ import annotations

import torch
from torch import Tensor

_POSITIONS = 2
_SEQUENCE = 3
_HEADS = 4
_LEAST_ADDED = -9_999
"""What is added to a score to mask it is less; biases such as those of distances are more."""


def data_positions(mask: Tensor) -> Tensor | None:
    """Return which positions an attention mask marks as data (rule B8.5).

    A mask with more than two dimensions says which positions each position attends to: one that
    none attends to is padding.

    Args:
        mask: shape (batch, positions), (batch, queries, positions) or (batch, heads, queries,
            positions): not 0 where there is data; or float and added to scores, 0 where there is
            data and large and negative where there is none.

    Returns:
        Bool, shape (batch, positions), True = data; None for a tensor of other dimensions.
    """
    if not _POSITIONS <= mask.ndim <= _HEADS:
        return None
    mask = mask.detach()
    is_data = mask != 0
    if mask.is_floating_point():
        # Compared as tensors: a compiled forward cannot look at values.
        is_added = (mask < 0).any() | (~is_data.any() if mask.ndim > _POSITIONS else False)
        is_data = torch.where(is_added, mask > _LEAST_ADDED, is_data)
    between = tuple(range(1, mask.ndim - 1))
    return is_data.any(between) if between else is_data


def spread_positions(value: Tensor, is_data: Tensor, *, is_channels_first: bool) -> Tensor | None:
    """Return which elements of a value are data, as a bool tensor that broadcasts to it.

    Args:
        value: an input or output of a module.
        is_data: bool, shape (batch, positions), True = data.
        is_channels_first: whether the module has its channels in dimension 1.

    Returns:
        A tensor of as many dimensions as the value; None when the value has no such positions.
    """
    shape, lengths = tuple(value.shape), tuple(is_data.shape)
    shapes: list[tuple[int, ...]]
    if is_channels_first:
        shapes = [(lengths[0], 1, lengths[1])] if value.ndim == _SEQUENCE else []
    else:
        rest = (1,) * (value.ndim - 1)
        shapes = [(*lengths, *rest[1:])] if value.ndim >= _SEQUENCE else []
        if value.ndim == _HEADS:
            shapes.append((lengths[0], 1, lengths[1], 1))
        shapes.append((is_data.numel(), *rest))
    for wanted in shapes:
        if all(one in (1, own) for one, own in zip(wanted, shape, strict=True)) and (
            wanted[0] == shape[0]
        ):
            return is_data.to(value.device).reshape(wanted)
    return None
