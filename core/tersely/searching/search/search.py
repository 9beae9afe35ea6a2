"""The cheapest config that is good enough: each layer alone, then trials of whole configs."""

from __future__ import annotations

import contextlib
import copy
import itertools
import time
from collections.abc import Callable, Iterator, Mapping

import attrs
import torch
from torch import nn

from tersely.calibration.observing import evaluating
from tersely.errors import ExportError, PlanError, SessionError
from tersely.json_value import Json
from tersely.planning.plan import Plan
from tersely.searching.chosen_recipes import Choices, chosen_at_once
from tersely.searching.compressing import CalibrationData, calls_of, compress
from tersely.searching.costs.costing import Costing
from tersely.searching.costs.latency_table import LatencyTable
from tersely.searching.quality import Quality
from tersely.searching.search.proposing import DENSE, Alone, Space, propose
from tersely.searching.trials.claims import Claim
from tersely.searching.trials.sampling import Setting
from tersely.searching.trials.study import TrialStore, Tried
from tersely.searching.units import Level, Unit
from tersely.session.session import Session

_MOST_EXCESS = 1e3
_SHOWN_DROP = 1e6
_UNBUILT = (PlanError, SessionError, ExportError)
_PAUSE = 0.2  # seconds between two looks at other processes' claims


@attrs.frozen(kw_only=True, eq=False)
class Search:
    """A search: its model and units, its measures, and the store of its trials.

    Attributes:
        model: the dense model.
        plan: the plan of the whole recipe.
        units: the units to choose levels for.
        data: the data that algorithms observe.
        quality: the measure of quality.
        costing: the cost that is minimized.
        max_drop: the largest loss that is allowed, in percent of the dense quality; of an error, in
            percent.
        store: the trials.
        reseed: called before each measurement, so that random numbers are the same in each.
        latencies: the table from which costs are predicted, or None to measure each.
    """

    model: nn.Module
    plan: Plan
    units: tuple[Unit, ...]
    data: CalibrationData
    quality: Quality
    costing: Costing
    max_drop: float
    store: TrialStore
    reseed: Callable[[], object]
    latencies: LatencyTable | None = None

    def table(
        self,
        *,
        watching: Callable[[int, int], object] | None = None,
        working: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext,
    ) -> Space:
        """Measure each unit at each level alone, unless it is stored already.

        Args:
            watching: called after each measurement with the number done and the total.
            working: the context in which layers are timed again.

        Raises:
            SessionError: none of them can be built.
        """
        rows: list[Mapping[str, Json]] = []
        count = sum(len(unit.levels) for unit in self.units)
        with self._timing(working):
            for unit in self.units:
                calls: CalibrationData | None = None
                for level in unit.levels:
                    key = f"{unit.key}: {level}"
                    row = self.store.row(key)
                    if row is None:
                        if calls is None:
                            self.reseed()
                            calls = calls_of(self.model, unit.modules, self.data)
                        row = self._alone((unit, level), calls)
                        self.store.add_row(key, row)
                    rows.append(row)
                    if watching is not None:
                        watching(len(rows), count)
        problems = [str(row["problem"]) for row in rows if row.get("problem")]
        if len(problems) == count:
            raise SessionError(f"no layer can be compressed alone; the first: {problems[0]}")
        found = iter(rows)
        alone = tuple(
            (DENSE, *(self._known(row) for row in itertools.islice(found, len(unit.levels))))
            for unit in self.units
        )
        return Space(units=self.units, alone=alone, max_drop=self.max_drop)

    @contextlib.contextmanager
    def _timing(
        self, working: Callable[[], contextlib.AbstractContextManager[None]]
    ) -> Iterator[None]:
        if self.latencies is None:
            yield
            return
        entries = self.latencies.entries
        with entries.measuring():
            yield
            with working():
                entries.measure_again()

    def _alone(self, choice: tuple[Unit, Level], data: CalibrationData) -> dict[str, Json]:
        """Return the loss and the cost of one unit at one level, however large the loss."""
        try:
            with self._compressed([choice], data) as session:
                drop = self.quality.drop_of(self.quality.measure(session.model))
                row: dict[str, Json] = {"drop": min(drop, _SHOWN_DROP), "problem": ""}
                if self.latencies is None:
                    return {**row, "cost": self.costing.share_of(session)}
                return {**row, "terms": self.latencies.terms_of(session, [choice], data)}
        except _UNBUILT as error:
            return {"drop": _SHOWN_DROP, "cost": 1.0, "problem": str(error)}

    def _known(self, row: Mapping[str, Json]) -> Alone:
        if self.latencies is not None and "terms" in row:
            cost = self.latencies.predict([(sign, key) for sign, key in row["terms"]])
        else:
            cost = float(row["cost"])
        return Alone(drop=float(row["drop"]), saved=1 - cost)

    def run(
        self,
        space: Space,
        *,
        trials: int,
        watching: Callable[[tuple[Tried, ...]], object] | None = None,
        waiting: Callable[[tuple[Claim, ...]], object] | None = None,
    ) -> tuple[Tried, ...]:
        """Try settings until there are as many trials as requested.

        Trials that other processes of this machine have under way are awaited, so that all
        processes end with the same trials.

        Args:
            space: what `table` returned.
            trials: the total number, including those of earlier and other processes.
            watching: called with all trials after each.
            waiting: called repeatedly with the claims of other processes while only those are left.

        Returns:
            All trials.
        """
        tried = self.store.tried()
        while len(tried) < trials:
            proposed = self._proposed(space, trials)
            if proposed is not None:
                self._try_alone(*proposed, trials=trials)
            else:
                others = self.store.claimed()
                if waiting is not None and others:
                    waiting(others)
                if any(one.is_seen for one in others):
                    time.sleep(_PAUSE)  # a setting that a process leaves untried is tried here
                elif len(self.store.tried()) == len(tried):
                    break
            tried, before = self.store.tried(), tried
            if watching is not None and len(tried) > len(before):
                watching(tried)
        return tried

    def _proposed(self, space: Space, trials: int) -> tuple[Setting, str] | None:
        """Return the next setting, or None if other processes are trying the rest."""
        claimed = {one.setting for one in self.store.claimed()}
        taken = claimed | {one.setting for one in self.store.tried()}
        return propose(space, self.store) if len(taken) < trials else None

    def _try_alone(self, setting: Setting, kind: str, *, trials: int) -> None:
        """Try a setting, unless another process was first."""
        with self.store.claim(setting, most=trials) as is_ours:
            if is_ours:
                one = self.try_out(setting, kind)
                self.store.add(one, score=self._score(one))

    def choices(self, setting: Setting) -> Choices:
        """Return the units that a setting changes, each with its level.

        Args:
            setting: for each unit, the index of its level.
        """
        pairs = zip(self.units, setting, strict=True)
        return [(unit, unit.levels[place - 1]) for unit, place in pairs if place]

    def try_out(self, setting: Setting, kind: str) -> Tried:
        """Compress a copy of the model; measure its quality, and its cost if that is good.

        A setting that cannot be built, such as one whose channels do not fill whole groups, counts
        as losing too much.

        Args:
            setting: the setting.
            kind: how it was proposed.
        """
        try:
            return self._tried(setting, kind)
        except _UNBUILT as error:
            lost, nothing = float("inf"), float("nan")
            return Tried(
                setting=setting, kind=kind, value=nothing, drop=lost, cost=None, problem=str(error)
            )

    def _tried(self, setting: Setting, kind: str) -> Tried:
        choices = self.choices(setting)
        with self._compressed(choices, self.data) as session:
            value = self.quality.measure(session.model)
            drop = self.quality.drop_of(value)
            cost = self._cost(session, choices) if drop <= self.max_drop else None
        return Tried(setting=setting, kind=kind, value=value, drop=drop, cost=cost)

    def _cost(self, session: Session, choices: Choices) -> float:
        if self.latencies is None:
            return self.costing.share_of(session)
        return self.latencies.share_of(session, choices, self.data)

    def measure(self, setting: Setting) -> float:
        """Measure the cost of a setting whose cost was predicted, store it, and return it.

        Args:
            setting: a setting that is good enough.
        """
        known = self.measured(setting)
        if known is not None:
            return known
        with self._compressed(self.choices(setting), self.data) as session:
            cost = self.costing.share_of(session)
        known = self.measured(setting)  # another process may have measured it meanwhile
        if known is None:
            self.store.add_row(_measured(setting), {"cost": cost})
        return cost if known is None else known

    def measured(self, setting: Setting) -> float | None:
        """Return the stored result of `measure`, or None.

        Args:
            setting: any setting.
        """
        row = self.store.row(_measured(setting))
        return None if row is None else float(row["cost"])

    @contextlib.contextmanager
    def _compressed(self, choices: Choices, data: CalibrationData) -> Iterator[Session]:
        """Yield the session of a compressed copy, without gradients, in evaluation mode."""
        self.reseed()
        model = copy.deepcopy(self.model)
        recipe = chosen_at_once(self.plan.recipe, choices)
        example = self.costing.example_inputs
        with evaluating(model), torch.no_grad():
            with torch.enable_grad():
                session = compress(model, recipe, data, example_inputs=example)
            yield session

    def _score(self, tried: Tried) -> float:
        """Return what the sampler minimizes: the cost, or more than 1 if too much is lost."""
        if tried.cost is not None:
            return tried.cost
        excess = (tried.drop - self.max_drop) / max(self.max_drop, 1.0)
        return 1 + min(excess, _MOST_EXCESS)


def _measured(setting: Setting) -> str:
    return f"measured: {list(setting)}"
