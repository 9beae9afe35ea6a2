"""What a report reads from a session; a protocol, because sessions are a floor above reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from torch import Tensor, nn

from tersely.arithmetic.qparams import QParams
from tersely.json_value import Json
from tersely.planning.plan import Plan
from tersely.shrinking.report import Shrunk


class Reported(Protocol):
    """An attached or finalized session, as its report sees it; nothing of it is changed."""

    @property
    def model(self) -> nn.Module:
        """The user's model."""
        ...

    @property
    def plan(self) -> Plan:
        """The plan."""
        ...

    @property
    def steps(self) -> int:
        """Optimizer steps so far."""
        ...

    @property
    def history(self) -> Sequence[Mapping[str, Json]]:
        """One mapping for each change of masks."""
        ...

    @property
    def metrics(self) -> Mapping[str, float]:
        """Name -> value."""
        ...

    @property
    def waiting(self) -> tuple[str, ...]:
        """Paths of the stages whose period has not begun."""
        ...

    @property
    def remarks(self) -> Sequence[str]:
        """What is to be said of what is in force, as sentences."""
        ...

    @property
    def to_shrink(self) -> tuple[str, ...]:
        """Paths of the stages that end with shrink and have not done so."""
        ...

    @property
    def shrinks(self) -> tuple[Shrunk, ...]:
        """What each shrink so far removed."""
        ...

    @property
    def shrunk_stages(self) -> frozenset[int]:
        """The stages, by index in the recipe, of which masked slices were removed."""
        ...

    def growing_stages(self) -> tuple[int, ...]:
        """Return the stages, by index in the recipe, whose sparsity is still growing."""
        ...

    def masks(self) -> dict[str, dict[str, Tensor]]:
        """Return {module: {target: mask}}."""
        ...

    def qparams(self) -> dict[str, dict[str, QParams]]:
        """Return {module: {target: QParams}}."""
        ...

    def integer_weights(self) -> Mapping[str, Mapping[str, Any]]:
        """Return {module: {target: integers}}."""
        ...
