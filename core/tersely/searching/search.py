"""The cheapest config that is good enough: each layer alone, then trials of whole configs."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator

import attrs
import torch
from torch import nn

from tersely.calibration.observing import evaluating
from tersely.errors import ExportError, PlanError, SessionError
from tersely.planning.plan import Plan
from tersely.searching.choosing import Choices, chosen_at_once
from tersely.searching.costs import Costing
from tersely.searching.drawing import Setting
from tersely.searching.latency_table import LatencyTable
from tersely.searching.proposing import DENSE, Alone, Space, propose
from tersely.searching.quality import Quality
from tersely.searching.study import TrialStore, Tried
from tersely.searching.trying import CalibrationData, calls_of, compress
from tersely.searching.units import Unit
from tersely.session.session import Session

_MOST_EXCESS = 1e3
_SHOWN_DROP = 1e6


@attrs.frozen(kw_only=True, eq=False)
class Search:
    """What is searched, and where what is known is kept.

    Attributes:
        model: the dense model.
        plan: the plan of the whole recipe.
        units: what can be chosen.
        data: what algorithms observe.
        quality: what may fall.
        costing: what is minimized.
        max_drop: how much may be lost, in percent of the dense quality; of an error, in percent.
        store: the trials.
        reseed: called before each measurement, so that each begins with the same generators.
        latencies: what costs are looked up in, or None to measure each.
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

    def table(self, *, watching: Callable[[int, int], object] | None = None) -> Space:
        """Measure each unit at each level alone, where that is not known yet.

        Args:
            watching: called after each measurement with how many are done and how many there are.

        Raises:
            SessionError: none of them can be built.
        """
        count = sum(len(unit.levels) for unit in self.units)
        done, alone, problems = 0, [], list[str]()
        for number, unit in enumerate(self.units):
            found, calls = [DENSE], None
            for place, level in enumerate(unit.levels, start=1):
                key = f"{unit.key}: {level}"
                row = self.store.row(key)
                if row is None:
                    setting = [0] * len(self.units)
                    setting[number] = place
                    if calls is None:
                        self.reseed()
                        calls = calls_of(self.model, unit.modules, self.data)
                    tried = self.try_out(tuple(setting), "alone", data=calls)
                    row = {
                        "drop": min(tried.drop, _SHOWN_DROP),
                        "cost": 1.0 if tried.cost is None else tried.cost,
                        "problem": tried.problem,
                    }
                    self.store.add_row(key, row)
                problems += [str(row["problem"])] if row.get("problem") else []
                found.append(Alone(drop=float(row["drop"]), saved=1 - float(row["cost"])))
                done += 1
                if watching is not None:
                    watching(done, count)
            alone.append(tuple(found))
        if len(problems) == count:
            raise SessionError(f"no layer can be compressed alone; the first: {problems[0]}")
        return Space(units=self.units, alone=tuple(alone), max_drop=self.max_drop)

    def run(
        self,
        space: Space,
        *,
        trials: int,
        watching: Callable[[tuple[Tried, ...]], object] | None = None,
    ) -> tuple[Tried, ...]:
        """Try settings until there are as many trials as asked for.

        Args:
            space: what `table` returned.
            trials: how many there are to be, those of earlier and other processes included.
            watching: called with all trials after each.

        Returns:
            All trials.
        """
        tried = self.store.tried()
        while len(tried) < trials:
            proposed = propose(space, self.store)
            if proposed is None:
                break
            setting, kind = proposed
            self.store.claim(setting)
            one = self.try_out(setting, kind)
            self.store.add(one, score=self._score(one))
            tried = self.store.tried()
            if watching is not None:
                watching(tried)
        return tried

    def choices(self, setting: Setting) -> Choices:
        """Return the units that a setting changes, each with its level.

        Args:
            setting: for each unit the place of its level.
        """
        pairs = zip(self.units, setting, strict=True)
        return [(unit, unit.levels[place - 1]) for unit, place in pairs if place]

    def try_out(self, setting: Setting, kind: str, *, data: CalibrationData | None = None) -> Tried:
        """Compress a copy of the model, measure its quality, and its cost if that is good enough.

        A setting that cannot be built, such as one whose channels do not make whole groups, is
        one that loses too much.

        Args:
            setting: what to try.
            kind: how it was proposed.
            data: what the algorithms of one unit alone observe, whose cost counts whatever its
                quality is; None for the whole batches.
        """
        try:
            return self._tried(setting, kind, data)
        except (PlanError, SessionError, ExportError) as error:
            lost, nothing = float("inf"), float("nan")
            return Tried(
                setting=setting, kind=kind, value=nothing, drop=lost, cost=None, problem=str(error)
            )

    def _tried(self, setting: Setting, kind: str, data: CalibrationData | None) -> Tried:
        observed = data or self.data
        with self._compressed(setting, observed) as session:
            value = self.quality.measure(session.model)
            drop = self.quality.drop_of(value)
            cost = None
            if data is not None or drop <= self.max_drop:
                cost = self._cost(session, setting, observed)
        return Tried(setting=setting, kind=kind, value=value, drop=drop, cost=cost)

    def measure(self, setting: Setting) -> float:
        """Return the cost of a setting as it is measured, where costs are predicted; kept.

        Args:
            setting: a setting that is good enough.
        """
        known = self.measured(setting)
        if known is not None:
            return known
        with self._compressed(setting, self.data) as session:
            cost = self.costing.share_of(session)
        self.store.add_row(_measured(setting), {"cost": cost})
        return cost

    def measured(self, setting: Setting) -> float | None:
        """Return what `measure` found, or None where a setting was not measured.

        Args:
            setting: any setting.
        """
        row = self.store.row(_measured(setting))
        return None if row is None else float(row["cost"])

    @contextlib.contextmanager
    def _compressed(self, setting: Setting, data: CalibrationData) -> Iterator[Session]:
        """Yield the session of a compressed copy, without gradients, in evaluation mode."""
        self.reseed()
        model = copy.deepcopy(self.model)
        recipe = chosen_at_once(self.plan.recipe, self.choices(setting))
        example = self.costing.example_inputs
        with evaluating(model), torch.no_grad():
            with torch.enable_grad():
                session = compress(model, recipe, data, example_inputs=example)
            yield session

    def _cost(self, session: Session, setting: Setting, data: CalibrationData) -> float:
        if self.latencies is None:
            return self.costing.share_of(session)
        return self.latencies.share_of(session, self.choices(setting), data)

    def _score(self, tried: Tried) -> float:
        """What the sampler makes small: the cost, or more than 1 for what loses too much."""
        if tried.cost is not None:
            return tried.cost
        excess = (tried.drop - self.max_drop) / max(self.max_drop, 1.0)
        return 1 + min(excess, _MOST_EXCESS)


def _measured(setting: Setting) -> str:
    return f"measured: {list(setting)}"
