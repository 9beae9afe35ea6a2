"""The frozen result of planning: one TargetPlan per target, and what matched nothing or lost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import attrs

from tersely.contracts.kinds import Method
from tersely.contracts.target_plan import Origin, TargetPlan
from tersely.document.recipe import Recipe
from tersely.json_value import Json


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


@attrs.frozen(kw_only=True)
class Plan:
    """The resolved plan: iterable over its targets, printable, and JSON both ways.

    Attributes:
        targets: one TargetPlan per target and method, in module order within each stage.
        recipe: the recipe it was resolved from.
        selected: names of all selected modules, in module order.
        unmatched: what matched nothing.
        shadowed: entries that lost a target to another.
        skipped: targets that do not exist on a selected module.
        hints: remarks that are no mistakes, such as a plain word that also selects longer names.
    """

    targets: tuple[TargetPlan, ...]
    recipe: Recipe
    selected: tuple[str, ...] = ()
    unmatched: tuple[Unmatched, ...] = ()
    shadowed: tuple[Shadowed, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    hints: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[TargetPlan]:
        return iter(self.targets)

    def __len__(self) -> int:
        return len(self.targets)

    def __str__(self) -> str:
        from tersely.planning.table import plan_table  # it reads the classes of this module

        return plan_table(self)

    def to_dict(self) -> dict[str, Json]:
        """Return the plan as JSON data; `from_dict` reads it back."""
        from tersely.planning.encoding import encode_plan  # it reads the classes of this module

        return encode_plan(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Json]) -> Plan:
        """Read a plan back from its JSON data.

        Args:
            data: what `to_dict` returned, perhaps through JSON.

        Raises:
            PlanError: the data is not a plan of this version.
            ConfigError: its recipe is not valid with the plugins that are installed now.
        """
        from tersely.planning.encoding import decode_plan  # it makes the classes of this module

        return decode_plan(data)
