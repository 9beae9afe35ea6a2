"""Calibration batches of the kind that loops train on, without their labels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sized
from typing import Any

import attrs

from tersely.errors import ConfigError, Problem

KEY = "labels"
"""What the labels are called in a batch that is a mapping."""


@attrs.frozen(eq=False)
class WithoutLabels:
    """The user's batches, each without its labels; as long as they are, where they know that.

    Attributes:
        batches: tuples or lists whose last value is the labels, or mappings with ``labels``.
        source: the job's file, for errors.
    """

    batches: Iterable[Any]
    source: str | None

    def __iter__(self) -> Iterator[Any]:
        return (self._inputs(batch) for batch in self.batches)

    def __len__(self) -> int:
        if isinstance(self.batches, Sized):
            return len(self.batches)
        raise TypeError("the batches do not know how many they are")

    def _inputs(self, batch: Any) -> Any:
        if isinstance(batch, Mapping) and KEY in batch:
            return {key: value for key, value in batch.items() if key != KEY}
        if isinstance(batch, (list, tuple)) and len(batch) > 1:
            inputs = batch[:-1]
            return inputs[0] if len(inputs) == 1 else inputs
        found = "a mapping" if isinstance(batch, Mapping) else f"a {type(batch).__name__}"
        problem = Problem(
            "data.labels",
            f"a batch of data.calibration is {found} without labels",
            f"return (inputs, labels) or a mapping with {KEY!r}, or leave data.labels out",
        )
        raise ConfigError([problem], source=self.source)
