"""Which elements of an activation belong to positions that are data, by its shape alone."""

from __future__ import annotations

from torch import Tensor

_SEQUENCE = 3
_HEADS = 4


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
