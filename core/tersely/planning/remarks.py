"""What planning noticed: what matched nothing, lost to another entry or was left out."""

from __future__ import annotations

import attrs

from tersely.contracts.kinds import Method
from tersely.contracts.target_plan import Origin


@attrs.frozen
class Unmatched:
    """A selector, target or entry that matched nothing.

    Attributes:
        path: where it stands, as in ``pruning.config_list[0].op_names[1]``.
        value: what was written.
        near: the nearest names that exist, best first.
        message: the whole finding as a sentence.
    """

    path: str
    value: str
    near: tuple[str, ...]
    message: str

    def __str__(self) -> str:
        return self.message


@attrs.frozen
class Shadowed:
    """A target that two entries configured, and which of them lost.

    Attributes:
        module: the module's name.
        target: the target as the loser spelled it.
        method: the method both belong to.
        winner: the entry in force.
        loser: the entry without effect.
    """

    module: str
    target: str
    method: Method
    winner: Origin
    loser: Origin

    def __str__(self) -> str:
        name = f"{self.module}.{self.target}" if self.module else self.target
        return f"{name} is configured twice: {self.winner} is in force, {self.loser} is not"


@attrs.frozen
class Skipped:
    """A target that a selected module does not have, such as the bias of a bias-free layer.

    Attributes:
        module: the module's name.
        target: the target's name.
        reason: why it is left out.
    """

    module: str
    target: str
    reason: str

    def __str__(self) -> str:
        name = f"{self.module}.{self.target}" if self.module else self.target
        return f"{name} is skipped: {self.reason}"
