"""What a search tries next: the uniform settings, a greedy path, steps from the best, samples.

The next setting depends only on the finished trials and the seed, so that a killed search continues
as if it had not been killed.

    uniform    every unit at the same index of its levels, until one is too strong
    greedy     a path on which each step saves most for what it loses; the last point that is good
               enough is found by halving
    step       from the best so far, one unit stronger, or one stronger and one milder
    sampled    Optuna's sampler, in turns with steps
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence

import attrs

from tersely.searching.trials.sampling import Setting
from tersely.searching.trials.study import TrialStore, Tried
from tersely.searching.units import Unit

_LEAST = 1e-3  # percent; counted for a level that loses nothing


@attrs.frozen(kw_only=True)
class Alone:
    """What one unit at one of its levels loses and saves when everything else is dense.

    Attributes:
        drop: the loss, in percent.
        saved: the saving, as a share of the dense cost.
    """

    drop: float
    saved: float


DENSE = Alone(drop=0.0, saved=0.0)


@attrs.frozen(kw_only=True)
class Space:
    """The possible choices, and what is known of each choice alone.

    Attributes:
        units: the units.
        alone: for each unit, what its levels lose and save alone, dense first.
        max_drop: how much may be lost, in percent.
    """

    units: tuple[Unit, ...]
    alone: tuple[tuple[Alone, ...], ...]
    max_drop: float

    def is_good(self, tried: Tried) -> bool:
        """Tell whether a setting loses at most `max_drop`.

        Args:
            tried: the trial.
        """
        return tried.drop <= self.max_drop

    def best(self, tried: Sequence[Tried]) -> Tried | None:
        """Return the cheapest setting that is good enough, the first of equals, or None.

        Args:
            tried: the trial.
        """
        good = [one for one in tried if self.is_good(one) and one.cost is not None]
        return min(good, key=lambda one: one.cost or 0.0, default=None)


def propose(space: Space, store: TrialStore) -> tuple[Setting, str] | None:
    """Return the next setting and how it was found, or None if everything has been tried.

    Args:
        space: what can be chosen.
        store: the trials.
    """
    tried = store.tried()
    known = {one.setting: one for one in tried}
    taken = frozenset(known) | {one.setting for one in store.claimed()}
    for kind, settings in (("uniform", _uniform(space, known)), ("greedy", _greedy(space, known))):
        for setting in settings:
            if setting not in taken:
                return setting, kind
    best = space.best(tried)
    if best is not None and len(tried) % 2 == 0:
        step = next((one for one in _steps(space, best.setting) if one not in taken), None)
        if step is not None:
            return step, "step"
    sampled = store.sample(taken)
    if sampled is not None:
        return sampled, "sampled"
    return None


def _uniform(space: Space, known: Mapping[Setting, Tried]) -> Iterator[Setting]:
    """Yield the uniform settings, mildest first, up to the first that is too strong."""
    counts: dict[str, int] = {}
    for unit in space.units:
        counts[unit.method] = max(counts.get(unit.method, 0), len(unit.levels))
    methods = tuple(counts)
    bad: list[tuple[int, ...]] = []
    places = itertools.product(*(range(counts[method] + 1) for method in methods))
    for place in sorted(places, key=lambda one: (sum(one), one)):
        if not any(place) or any(_is_beyond(place, one) for one in bad):
            continue
        at = dict(zip(methods, place, strict=True))
        setting = tuple(min(at[unit.method], len(unit.levels)) for unit in space.units)
        yield setting
        found = known.get(setting)
        if found is not None and not space.is_good(found):
            bad.append(place)


def _is_beyond(place: tuple[int, ...], other: tuple[int, ...]) -> bool:
    return all(one >= two for one, two in zip(place, other, strict=True))


def _greedy(space: Space, known: Mapping[Setting, Tried]) -> Iterator[Setting]:
    """Yield points of the greedy path by bisection until its last good one is known."""
    path = greedy_path(space)
    good, bad = -1, len(path)
    while bad - good > 1:
        middle = (good + bad) // 2
        found = known.get(path[middle])
        if found is None:
            yield path[middle]
            return
        if space.is_good(found):
            good = middle
        else:
            bad = middle


def greedy_path(space: Space) -> list[Setting]:
    """Return settings from the mildest to the strongest, each one step of the greatest worth.

    Args:
        space: the possible choices, with what each loses and saves alone.
    """
    current = [0] * len(space.units)
    path: list[Setting] = []
    while True:
        steps = [
            (_worth(space.alone[index][place], space.alone[index][current[index]]), index, place)
            for index, levels in enumerate(space.alone)
            for place in range(current[index] + 1, len(levels))
        ]
        steps = [one for one in steps if one[0] > 0]
        if not steps:
            return path
        _, index, place = max(steps, key=lambda one: (one[0], -one[1], -one[2]))
        current[index] = place
        path.append(tuple(current))


def _worth(after: Alone, before: Alone) -> float:
    """Return what a step saves for each percent that it loses; 0 if it saves nothing."""
    saved = after.saved - before.saved
    return max(0.0, saved) / max(after.drop - before.drop, _LEAST)


def _steps(space: Space, setting: Setting) -> Iterator[Setting]:
    """Yield neighbours of a setting, the most promising first."""
    up = [
        (_worth(space.alone[index][place + 1], space.alone[index][place]), index)
        for index, place in enumerate(setting)
        if place < len(space.units[index].levels)
    ]
    down = [index for index, place in enumerate(setting) if place > 0]
    single = sorted((one for one in up if one[0] > 0), key=lambda one: (-one[0], one[1]))
    singles = [_moved(setting, {index: 1}) for _, index in single]
    pairs = []
    for (_, index), other in itertools.product(single, down):
        if other == index:
            continue
        moved = _moved(setting, {index: 1, other: -1})
        saved, lost = _sums(space, moved), _sums(space, setting)
        if saved[0] > lost[0]:
            pairs.append((saved[1] - lost[1], lost[0] - saved[0], moved))
    pairs.sort()
    # One after the other, since losses of single units only hint at their joint loss.
    for one, two in itertools.zip_longest(singles, (moved for *_, moved in pairs)):
        yield from (found for found in (one, two) if found is not None)


def _sums(space: Space, setting: Setting) -> tuple[float, float]:
    found = [levels[place] for levels, place in zip(space.alone, setting, strict=True)]
    return sum(one.saved for one in found), sum(one.drop for one in found)


def _moved(setting: Setting, moves: Mapping[int, int]) -> Setting:
    return tuple(place + moves.get(index, 0) for index, place in enumerate(setting))
