"""What planning noticed: what matched nothing, lost to another entry or was left out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import attrs

from tersely.contracts.kinds import Method
from tersely.contracts.target_plan import Origin
from tersely.document.recipe import Entry, Stage


@attrs.frozen
class Unmatched:
    """A selector, target or entry that matched nothing.

    Attributes:
        path: its place in the document, as in ``pruning.config_list[0].op_names[1]``.
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
        return f"{self.name} is skipped: {self.reason}"

    @property
    def name(self) -> str:
        """The target's full name."""
        return f"{self.module}.{self.target}" if self.module else self.target


def fold_skipped(skipped: Iterable[Skipped]) -> Iterator[str]:
    """Yield one line for each target name and reason, however many modules have it.

    Args:
        skipped: what is left out.
    """
    alike: dict[tuple[str, str], list[Skipped]] = {}
    for one in skipped:
        alike.setdefault((one.target, one.reason), []).append(one)
    for (target, reason), found in alike.items():
        name = found[0].name if len(found) == 1 else f"{target} of {len(found)} modules"
        yield f"{name}: {reason}"


def worth_reporting(unmatched: Sequence[Unmatched], entry: Entry, stage: Stage) -> list[Unmatched]:
    """Leave out what a preset names and the model lacks; its excludes are the user's own.

    Args:
        unmatched: what of an entry matched nothing.
        entry: the entry.
        stage: its stage.
    """
    if not entry.is_preset:
        return list(unmatched)
    if entry is not stage.entries[0]:
        return []  # every entry of a preset has the user's excludes
    found = [one for one in unmatched if ".exclude_" in one.path and one.value not in entry.implied]
    return [
        attrs.evolve(
            one,
            path=one.path.replace(entry.path, stage.path, 1),
            message=one.message.replace(entry.path, stage.path, 1),
        )
        for one in found
    ]
