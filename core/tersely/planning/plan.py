"""The frozen result of planning: one TargetPlan per target, and what matched nothing or lost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import attrs

from tersely.contracts.target_plan import TargetPlan
from tersely.json_value import Json
from tersely.planning.data import PlanData


@attrs.frozen(kw_only=True)
class Plan(PlanData):
    """The resolved plan: iterable over its targets, printable, and JSON both ways.

    Attributes:
        targets: one TargetPlan per target and method, in module order within each stage.
        recipe: the recipe it was resolved from.
        selected: names of all selected modules, in module order.
        unmatched: what matched nothing.
        shadowed: entries that lost a target to another.
        skipped: targets that do not exist on a selected module.
        hints: remarks on what is legal, such as a plain word that also selects longer names.
    """

    def __iter__(self) -> Iterator[TargetPlan]:
        return iter(self.targets)

    def __len__(self) -> int:
        return len(self.targets)

    def __str__(self) -> str:
        from tersely.planning.table import plan_table  # it reads the classes of this module

        return plan_table(self)

    def to_dict(self) -> dict[str, Json]:
        """Return the plan as JSON data; `from_dict` reads it back."""
        from tersely.planning.encoding import encode_plan  # most plans are never written

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
        from tersely.planning.encoding import decode_plan  # most plans are never read

        found = decode_plan(data)
        return cls(**{one.name: getattr(found, one.name) for one in attrs.fields(PlanData)})
