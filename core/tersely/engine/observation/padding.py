"""Padding: which positions of a batch are data, known to whatever observes it.

What becomes of a value (batch B, positions L, features F) whose positions a mask of shape (B, L)
marks; a value of any other shape has no positions of the batch and is observed whole.

==================================  =================================
value                               what is observed
==================================  =================================
(B, L, F, ...)                      (1, positions kept, F, ...)
(B, heads, L, F)                    (1, heads, positions kept, F)
(B * L, F, ...)                     (positions kept, F, ...)
(B, F, L), channels first           one (1, F, positions kept) a text
==================================  =================================
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any, TypeAlias

import torch
from torch import Tensor

from tersely.arithmetic.positions import data_positions, spread_positions
from tersely.errors import CalibrationError
from tersely.instrument.scales.padded import ATTENTION_MASK

PaddingMask: TypeAlias = str | Callable[[Any], Tensor | None]
"""A batch mapping's key, or what is called with the batch; gives 1 = data, 0 = padding."""

_current: ContextVar[Tensor | None] = ContextVar("padding", default=None)


def mask_of(batch: Any, mask: PaddingMask | None) -> Tensor | None:
    """Return which positions of a batch are data.

    Args:
        batch: a batch as the user gave it.
        mask: how to find them; by default a mapping's ``attention_mask``, unless the batch feeds a
            decoder whose texts it does not describe.

    Returns:
        Bool, shape (batch, positions), True = data; None when all of them are.

    Raises:
        CalibrationError: there is no such key, or its value is not a mask.
    """
    if mask is None:
        found = batch.get(ATTENTION_MASK) if isinstance(batch, Mapping) else None
        if not isinstance(found, Tensor) or _has_decoder(batch):
            return None
    elif isinstance(mask, str):
        if not isinstance(batch, Mapping) or mask not in batch:
            has = f"the keys {', '.join(map(str, batch))}" if isinstance(batch, Mapping) else "none"
            raise CalibrationError(
                f"mask {mask!r} is not a key of the batch, a {type(batch).__name__} with {has}; "
                "name the key of its padding mask, or give a function of the batch"
            )
        found = batch[mask]
    else:
        found = mask(batch)
        if found is None:
            return None
    is_data = data_positions(found) if isinstance(found, Tensor) else None
    if is_data is None and mask is not None:
        what = f"shape {list(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
        raise CalibrationError(
            "the padding mask of a batch is a tensor of shape [batch, positions], 1 where there "
            f"is data and 0 where there is padding; found {what}"
        )
    return None if is_data is None or bool(is_data.all()) else is_data


def _has_decoder(batch: Mapping[Any, Any]) -> bool:
    return any(str(key).startswith("decoder_") for key in batch)


@contextlib.contextmanager
def leaving_out(is_data: Tensor | None) -> Iterator[None]:
    """Let whatever observes inside the block see data only.

    Args:
        is_data: bool, shape (batch, positions); None when there is no padding.
    """
    token = _current.set(is_data)
    try:
        yield
    finally:
        _current.reset(token)


def current_padding() -> Tensor | None:
    """Return which positions of the batch that runs are data, or None when all of them are."""
    return _current.get()


def kept_positions(value: Tensor, *, is_channels_first: bool) -> Tensor | None:
    """Return which elements of a value are data, as a bool tensor that broadcasts to it.

    Args:
        value: an input or output of a module.
        is_channels_first: whether the module has its channels in dimension 1.

    Returns:
        A tensor of as many dimensions as the value; None when the value has no padding.
    """
    is_data = _current.get()
    if is_data is None:
        return None
    return spread_positions(value, is_data, is_channels_first=is_channels_first)


_HEADS = 4


def data_of(value: Tensor, *, is_channels_first: bool = False) -> tuple[Tensor, ...]:
    """Return the parts of a value that are data, in the layout that the value has.

    Args:
        value: an input or output of a module.
        is_channels_first: whether the module has its channels in dimension 1.

    Returns:
        The value itself when it has no padding; otherwise the parts that the table above shows,
        without those that hold nothing.
    """
    kept = kept_positions(value, is_channels_first=is_channels_first)
    if kept is None:
        return (value,)
    if is_channels_first:
        parts = [one[None, :, here[0]] for one, here in zip(value, kept, strict=True)]
    elif kept.shape[0] == value.shape[0] == kept.numel():
        parts = [value[kept.flatten()]]
    elif value.ndim == _HEADS and kept.shape[1] == 1 and kept.shape[2] == value.shape[2]:
        rows = value.transpose(1, 2)[kept.flatten(1)]
        parts = [rows.transpose(0, 1)[None]]
    else:
        parts = [value[kept.reshape(kept.shape[:2])][None]]
    return tuple(part for part in parts if part.numel())


def is_channels_first(channel_dim: int | None, module: torch.nn.Module) -> bool:
    """Tell whether a module has its channels in dimension 1, as convolutions do.

    Args:
        channel_dim: the dimension that the plan found for an input or output, or None.
        module: the module.
    """
    return channel_dim == 1 or isinstance(module, torch.nn.modules.conv._ConvNd)
