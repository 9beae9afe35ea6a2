"""The part of a session that lets the user set and freeze masks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from torch import Tensor

from tersely.pruning.engine import Pruning
from tersely.session.order import State, need_attached


class EditableMasks:
    """Masks that are set, frozen and unfrozen by hand; inherited by sessions and nothing else."""

    _state: State
    _pruning: Pruning

    def set_masks(self, masks: Mapping[str, Mapping[str, Tensor]], *, freeze: bool = False) -> None:
        """Put your own masks in force: mask more, or let masked weights grow back.

        Args:
            masks: {module: {target: mask}}, bool, True = kept, the target's shape or one that
                broadcasts to it. Targets that are aligned with these follow.
            freeze: whether algorithms and schedules leave these targets alone from now on; a
                target that is frozen already stays so either way.

        Raises:
            SessionError: there is no such target, or the mask does not fit it.
        """
        need_attached(self._state, "set_masks")
        self._pruning.set_masks(masks, is_frozen=freeze)
        self._record("set_masks")

    @property
    def frozen(self) -> tuple[str, ...]:
        """Full names of the targets whose masks only `set_masks` changes, in the plan's order."""
        pruning = self._pruning
        return tuple(one.plan.name for one in pruning.handles if one in pruning.frozen)

    def freeze(self, targets: Iterable[str] | None = None) -> None:
        """Keep masks as they are: algorithms and schedules leave these targets alone from now on.

        Args:
            targets: full names such as ``"layer1.weight"``; all by default.

        Raises:
            SessionError: there is no such target, or it has no mask yet.
        """
        need_attached(self._state, "freeze")
        self._pruning.freeze(targets)

    def unfreeze(self, targets: Iterable[str] | None = None) -> None:
        """Let algorithms and schedules decide on targets again, at their next update.

        Args:
            targets: full names such as ``"layer1.weight"``; all by default.

        Raises:
            SessionError: there is no such target.
        """
        need_attached(self._state, "unfreeze")
        self._pruning.unfreeze(targets)

    if TYPE_CHECKING:

        def _record(self, event: str) -> dict[str, dict[str, float]]: ...
