"""Observers of a session, which receive its numbers step by step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import attrs


@attrs.frozen(kw_only=True)
class Observation:
    """Numbers of a session at one step.

    Attributes:
        step: the optimizer step, counted from attach.
        event: the cause: ``compress``, ``begin``, ``step``, ``set_masks`` or ``shrink`` if masks
            have changed, ``note`` if `Session.note` was called.
        epoch: the epoch, counted from 1, if it is known.
        values: name -> number. ``total_sparsity`` is that of all pruned elements; those of a target
            end with its name: ``sparsity/fc.weight``, ``masked/fc.weight`` (elements), and
            ``range_low/fc.weight`` and ``range_high/fc.weight``, the values that its scales span.
    """

    step: int
    event: str
    epoch: int | None = None
    values: Mapping[str, float] = attrs.field(factory=dict)


class HistoryObserver(Protocol):
    """An observer for `Session.add_observer`, such as a writer of TensorBoard's files."""

    def observe(self, observation: Observation) -> None:
        """Take the numbers of a step.

        Args:
            observation: the numbers; several may have the same step.
        """
        ...

    def close(self, *, failed: bool = False) -> None:
        """Write the remaining numbers; a job calls it at its end, also after an error.

        Args:
            failed: whether the job ends with an error, or was interrupted.
        """
        ...
