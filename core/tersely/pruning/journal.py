"""The masks and values before a change, so that an error can take all of it back."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn

from tersely.engine.binding import Handle
from tersely.pruning.mask_buffers import is_kept, mask_of, remove_mask, write_mask


class Journal:
    """What was in force before a change, so that an error can take all of it back."""

    def __init__(self) -> None:
        self.masks: dict[Handle, Tensor | None] = {}
        self.values: dict[Handle, Tensor] = {}

    def note(self, masks: Iterable[Handle], values: Iterable[Handle]) -> None:
        """Remember what is about to change.

        Args:
            masks: the targets that get another mask.
            values: the targets that get other values.
        """
        for handle in masks:
            mask = mask_of(handle)
            if handle not in self.masks:
                self.masks[handle] = None if mask is None else is_kept(handle, mask)
        for handle in values:
            self.values.setdefault(handle, handle.dense().clone())

    def undo(self, model: nn.Module) -> None:
        """Put everything back.

        Args:
            model: the session's model.
        """
        for handle, kept in self.masks.items():
            if kept is None:
                remove_mask(handle)
            else:
                write_mask(handle, kept, model)
        for handle, values in self.values.items():
            handle.write(values)
