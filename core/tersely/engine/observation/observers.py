"""What an engine observes in one pass over calibration batches."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager


class Observers(ABC):
    """What an engine observes in one pass over batches: listen, collect, keep."""

    @property
    @abstractmethod
    def is_empty(self) -> bool:
        """Whether there is nothing to observe."""

    @abstractmethod
    def listening(self) -> AbstractContextManager[None]:
        """Observe the model inside the block."""

    @abstractmethod
    def collect(self) -> None:
        """Bring together what all processes saw, and check it; the engine is not changed.

        Raises:
            CalibrationError: a target was not seen, or its values cannot be used. It is raised in
                every process.
        """

    @abstractmethod
    def keep(self) -> None:
        """Give the engine what was observed."""
