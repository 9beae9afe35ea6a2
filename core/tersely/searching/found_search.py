"""What a search found: the trials, the best of them, and how they are shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs

from tersely.json_value import Json
from tersely.reporting.folded_names import fold_names
from tersely.searching.study import Tried
from tersely.text_table import Column, TextTable, ruled

_SHOWN = 5


@attrs.frozen(kw_only=True)
class SearchResult:
    """The trials of a search.

    Attributes:
        objective: what was made small.
        quality: what was not to fall: a metric's name, or ``output error``.
        max_drop: how much it might fall, in percent.
        trials: every trial, in order.
        units: for each unit, the labels of its levels, dense first.
        recipe: the best recipe, or None where no setting was good enough.
    """

    objective: str
    quality: str
    max_drop: float
    trials: tuple[Tried, ...]
    units: Mapping[str, tuple[str, ...]]
    recipe: Mapping[str, Json] | None

    @property
    def best(self) -> Tried | None:
        """The cheapest trial that is good enough, or None."""
        return _cheapest(self.trials)

    @property
    def best_uniform(self) -> Tried | None:
        """The cheapest that treats every layer alike and is good enough, or None."""
        return _cheapest([one for one in self.trials if one.kind == "uniform"])

    def to_dict(self) -> dict[str, Json]:
        """Return the trials and the recipe as JSON data; what is not finite is a string."""
        data = attrs.asdict(self, recurse=False)
        data["units"] = {name: list(levels) for name, levels in self.units.items()}
        data["trials"] = [
            {
                **attrs.asdict(one),
                "setting": list(one.setting),
                "value": one.value if abs(one.value) < float("inf") else repr(one.value),
                "drop": one.drop if abs(one.drop) < float("inf") else repr(one.drop),
            }
            for one in self.trials
        ]
        data["recipe"] = None if self.recipe is None else dict(self.recipe)
        return data

    def __str__(self) -> str:
        if self.best is None:
            return (
                f"none of {len(self.trials)} trials loses at most {self.max_drop:g} % of "
                f"{self.quality}; allow more, or milder levels"
            )
        lines = [f"{len(self.trials)} trials, {self.objective} as a share of the dense model's"]
        lines += ruled(self._trials_table())
        if self.best_uniform is None:
            lines.append(" with every layer alike, each loses too much")
        lines += ["", *ruled(self._layers_table(self.best))]
        return "\n".join(lines)

    def _trials_table(self) -> TextTable:
        columns = (
            Column(heading="trial", is_number=True),
            Column(heading=self.objective, is_number=True),
            Column(heading="loss", is_number=True),
            Column(heading="proposed by"),
        )
        numbered = [
            (place, one) for place, one in enumerate(self.trials, 1) if one.cost is not None
        ]
        shown = sorted(numbered, key=lambda pair: (pair[1].cost or 0.0, pair[0]))[:_SHOWN]
        shown += [pair for pair in numbered if pair[1] is self.best_uniform and pair not in shown]
        rows = tuple(
            (f"{place}", f"{one.cost:.4f}", f"{one.drop:.2f} %", _KINDS.get(one.kind, one.kind))
            for place, one in shown
        )
        return TextTable(columns=columns, rows=rows)

    def _layers_table(self, best: Tried) -> TextTable:
        """What the best does: one row for each level of a method, with the layers that have it."""
        found: dict[tuple[str, str], list[str]] = {}
        for (name, levels), place in zip(self.units.items(), best.setting, strict=True):
            method, _, layer = name.partition(" of ")
            found.setdefault((method, levels[place]), []).append(layer)
        rows = []
        for (method, level), layers in found.items():
            heading = (method, level)
            for pattern in fold_names(layers):
                rows.append((*heading, pattern))
                heading = ("", "")
        columns = (Column(heading="method"), Column(heading="best"), Column(heading="layers"))
        return TextTable(columns=columns, rows=tuple(rows))


_KINDS = {
    "uniform": "every layer alike",
    "greedy": "greedy",
    "step": "a step from the best",
    "sampled": "sampling",
}


def _cheapest(trials: Sequence[Tried]) -> Tried | None:
    good = [one for one in trials if one.cost is not None]
    return min(good, key=lambda one: one.cost or 0.0, default=None)
