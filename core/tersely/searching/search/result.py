"""The result of a search: its trials, the best of them, and how they are shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs

from tersely.json_value import Json
from tersely.reporting.printing.folded_names import fold_names
from tersely.searching.trials.sampling import Setting
from tersely.searching.trials.study import Tried
from tersely.text_table import Column, TextTable, ruled

_SHOWN = 5


@attrs.frozen(kw_only=True)
class SearchResult:
    """The trials of a search.

    Attributes:
        objective: what was minimized.
        quality: the measure of quality: a metric's name, or ``output error``.
        max_drop: the largest loss that was allowed, in percent.
        trials: every trial, in order.
        units: for each unit, the labels of its levels, dense first.
        recipe: the best recipe, or None if no setting was good enough.
        measured: if costs of trials are predicted, setting -> its measured cost.
        latencies: if they are predicted, key of an entry -> the layer, and its latency alone as a
            share of the dense model's.
    """

    objective: str
    quality: str
    max_drop: float
    trials: tuple[Tried, ...]
    units: Mapping[str, tuple[str, ...]]
    recipe: Mapping[str, Json] | None
    measured: Mapping[Setting, float] = attrs.field(factory=dict)
    latencies: Mapping[str, Mapping[str, Json]] = attrs.field(factory=dict)

    @property
    def best(self) -> Tried | None:
        """The cheapest good trial, or None; among measured trials if there are any."""
        return self._cheapest(self.trials)

    @property
    def best_uniform(self) -> Tried | None:
        """The cheapest trial that is good enough and treats every layer alike, or None."""
        return self._cheapest([one for one in self.trials if one.kind == "uniform"])

    @property
    def promising(self) -> tuple[Setting, ...]:
        """The settings of the five cheapest trials, and of the best uniform one, as predicted."""
        good = sorted((one for one in self.trials if one.cost is not None), key=_cost)
        uniform = [one for one in good if one.kind == "uniform"][:1]
        return tuple(dict.fromkeys(one.setting for one in (*good[:_SHOWN], *uniform)))

    def cost_of(self, tried: Tried) -> float | None:
        """Return the cost of a trial: measured, or else predicted; None if it lost too much.

        Args:
            tried: one of the trials.
        """
        return self.measured.get(tried.setting, tried.cost)

    def is_predicted(self, tried: Tried) -> bool:
        """Tell whether the cost of a trial is predicted rather than measured.

        Args:
            tried: one of the trials.
        """
        return bool(self.latencies) and tried.setting not in self.measured

    def _cheapest(self, trials: Sequence[Tried]) -> Tried | None:
        good = [one for one in trials if one.cost is not None]
        known = [one for one in good if one.setting in self.measured]
        return min(known or good, key=lambda one: self.cost_of(one) or 0.0, default=None)

    def to_dict(self) -> dict[str, Json]:
        """Return the trials and the recipe as JSON data; infinite values are strings."""
        data = attrs.asdict(self, recurse=False)
        data["units"] = {name: list(levels) for name, levels in self.units.items()}
        data["trials"] = [
            {
                **attrs.asdict(one),
                "setting": list(one.setting),
                "value": one.value if abs(one.value) < float("inf") else repr(one.value),
                "drop": one.drop if abs(one.drop) < float("inf") else repr(one.drop),
                **({"measured": self.measured.get(one.setting)} if self.latencies else {}),
            }
            for one in self.trials
        ]
        del data["measured"]
        data["latencies"] = [dict(one) for one in self.latencies.values()]
        data["recipe"] = None if self.recipe is None else dict(self.recipe)
        return data

    def __str__(self) -> str:
        if self.best is None:
            return (
                f"none of {len(self.trials)} trials loses at most {self.max_drop:g} % of "
                f"{self.quality}; allow more, or milder levels"
                + "".join(f"\n{line}" for line in self._problems())
            )
        lines = [f"{len(self.trials)} trials, {self.objective} as a share of the dense model's"]
        lines += ruled(self._trials_table())
        if self.best_uniform is None:
            lines.append(" with every layer alike, each loses too much")
        lines += self._problems()
        lines += ["", *ruled(self._layers_table(self.best))]
        return "\n".join(lines)

    def _problems(self) -> list[str]:
        found = [one.problem for one in self.trials if one.problem]
        return [f" {len(found)} could not be built, such as: {found[0]}"] if found else []

    def _trials_table(self) -> TextTable:
        predicted = (Column(heading="predicted", is_number=True),) if self.measured else ()
        columns = (
            Column(heading="trial", is_number=True),
            Column(heading=self.objective, is_number=True),
            *predicted,
            Column(heading="loss", is_number=True),
            Column(heading="proposed by"),
        )
        good = [(place, one) for place, one in enumerate(self.trials, 1) if one.cost is not None]
        shown = [pair for pair in good if pair[1].setting in self.measured or not self.measured]
        shown = sorted(shown, key=lambda pair: (self.cost_of(pair[1]) or 0.0, pair[0]))[:_SHOWN]
        shown += [pair for pair in good if pair[1] is self.best_uniform and pair not in shown]
        rows = tuple(
            (
                f"{place}",
                f"{self.cost_of(one) or 0.0:.4f}",
                *(f"{one.cost:.4f}" for _ in predicted),
                f"{one.drop:.2f} %",
                _KINDS.get(one.kind, one.kind),
            )
            for place, one in shown
        )
        return TextTable(columns=columns, rows=rows)

    def _layers_table(self, best: Tried) -> TextTable:
        """Return a row for each level of a method in the best trial, with its layers."""
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


def _cost(tried: Tried) -> float:
    return tried.cost or 0.0
