"""The arguments of observing hooks, as far as plugins may rely on them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from torch import nn

from tersely.contracts.target_plan import TargetPlan


class ResolvedPlan(Protocol):
    """A frozen plan; `tersely.Plan` is one."""

    @property
    def hints(self) -> tuple[str, ...]:
        """Remarks that are not mistakes."""
        ...

    def __iter__(self) -> Iterator[TargetPlan]: ...

    def __len__(self) -> int: ...


class RunningSession(Protocol):
    """A session; `tersely.Session` is one."""

    model: nn.Module
    steps: int

    @property
    def plan(self) -> ResolvedPlan:
        """The frozen plan."""
        ...

    @property
    def history(self) -> list[dict[str, object]]:
        """One mapping for each change of masks."""
        ...
