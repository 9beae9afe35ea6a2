"""The padding of the call that runs: read from the model's own arguments while it trains."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from tersely.arithmetic.positions import data_positions, spread_positions

ATTENTION_MASK = "attention_mask"


class PaddingOfCall:
    """Which positions of the model's running call are data; mutable, because every call sets it.

    The model's forward sets it when it begins and clears it when it ends; what follows training
    reads it in between. It is a plain attribute, which compiled graphs can follow. Copies and
    pickles of a model come without the value.

    Attributes:
        index: position of the argument ``attention_mask``, or None when it has none.
        is_data: bool, shape (batch, positions), True = data; None without padding.
    """

    def __init__(self, index: int | None) -> None:
        self.index = index
        self.is_data: Tensor | None = None

    def enter(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Note the padding of a call, whose mask is its ``attention_mask``.

        A call that feeds a decoder has none: its mask describes other texts.

        Args:
            args: the call's positional arguments.
            kwargs: the call's keyword arguments.
        """
        found = kwargs.get(ATTENTION_MASK)
        if found is None and self.index is not None and self.index < len(args):
            found = args[self.index]
        self.is_data = None
        if not isinstance(found, Tensor):
            return
        if any(name.startswith("decoder_") and kwargs[name] is not None for name in kwargs):
            return
        is_data = data_positions(found)
        if is_data is None:
            return
        # Other devices would have to be waited for, and a compiled graph does not know.
        if found.device.type == "cpu" and not torch.compiler.is_compiling() and bool(is_data.all()):
            return
        self.is_data = is_data

    def leave(self) -> None:
        """Forget the padding when the call has ended."""
        self.is_data = None

    def positions(self, value: Tensor, *, is_channels_first: bool) -> Tensor | None:
        """Return which elements of a value are data, or None when all of them are.

        Args:
            value: an input or output of a module that the call has reached.
            is_channels_first: whether the module has its channels in dimension 1.
        """
        if self.is_data is None:
            return None
        return spread_positions(value, self.is_data, is_channels_first=is_channels_first)

    def __getstate__(self) -> dict[str, Any]:
        return {"index": self.index, "is_data": None}
