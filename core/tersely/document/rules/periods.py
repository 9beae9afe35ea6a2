"""The periods of a recipe, one after another in time, and what may follow what (rule O4)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import attrs

from tersely.document.entries import PERIODS, Place, recipe_of, recipe_path, stages_in
from tersely.document.path import Path, spell_path
from tersely.document.reading.integers import whole_numbers
from tersely.document.reading.positions import Finding
from tersely.document.schemas.schema import Kind
from tersely.errors import PluginError
from tersely.json_value import Json
from tersely.registry.registry import registry

UNTIL = "until"


@attrs.frozen
class Period:
    """A part of a recipe and the time in which its stages are active.

    Attributes:
        data: the mapping whose stages they are: the recipe itself, or an item of ``stages``.
        path: its place in the recipe.
        begin: the optimizer step with which it begins.
        end: the optimizer step with which it ends, or None for the end of training.
    """

    data: Mapping[str, Json]
    path: Path = ()
    begin: int = 0
    end: int | None = None


def periods_of(recipe: Mapping[str, Json]) -> tuple[Period, ...]:
    """Return the recipe itself, which lasts throughout, and then its periods in order of time.

    Args:
        recipe: a checked recipe.
    """
    periods = [Period(recipe)]
    begin = 0
    for index, item in enumerate(recipe.get(PERIODS, ())):
        end = whole_numbers(item.get(UNTIL))
        periods.append(Period(item, (PERIODS, index), begin, end))
        begin = end or begin
    return tuple(periods)


def check_periods(data: Json, kind: Kind) -> Iterator[Finding]:
    """Yield periods that do not follow one another, and stages that cannot come when they would.

    Args:
        data: plain JSON data without what counts as absent; need not fit the schema.
        kind: what the document is.
    """
    recipe, root = recipe_of(data, kind), recipe_path(kind)
    items = recipe.get(PERIODS)
    yield from _check_weights(recipe, root)
    if not isinstance(items, list):
        return
    fixed = [stage for stage in stages_in(recipe, root) if _is_fixed(stage)]
    begin = 0
    for index, item in enumerate(items):
        if not isinstance(item, dict):
            return
        path = (*root, PERIODS, index)
        until = step_of(item.get(UNTIL))
        yield from _check_until(item, path, begin=begin, has_next=index + 1 < len(items))
        for stage in stages_in(item, path):
            if until is not None and until > begin:
                yield from _check_schedule(stage, begin=begin, end=until)
            if stage.method == "pruning" and begin and fixed:
                yield _too_late(stage, fixed[0], root)
        fixed += [stage for stage in stages_in(item, path) if _is_fixed(stage)]
        if until is None:
            return
        begin = until


def _check_weights(recipe: Mapping[str, Json], root: Path) -> Iterator[Finding]:
    """Yield stages active at the same time that weigh the user's own loss differently."""
    always = _weights(stages_in(recipe, root))
    yield from _contradictions(always)
    items = recipe.get(PERIODS)
    for index, item in enumerate(items if isinstance(items, list) else ()):
        if isinstance(item, dict):
            own = _weights(stages_in(item, (*root, PERIODS, index)))
            yield from _contradictions([*always[:1], *own])


def _weights(stages: Iterable[Place]) -> list[tuple[Place, Json]]:
    found = [(stage, stage.data.get(_WEIGHT)) for stage in stages if stage.method == "distillation"]
    return [(stage, weight) for stage, weight in found if isinstance(weight, (int, float))]


def _contradictions(weights: Sequence[tuple[Place, Json]]) -> Iterator[Finding]:
    for stage, weight in weights[1:]:
        first, stated = weights[0]
        if weight != stated:
            yield Finding(
                (*stage.path, _WEIGHT),
                f"found {weight}, and {spell_path(first.path)}, active at the same time, has "
                f"{stated}",
                "the task's own loss has only one weight; write it in one of the stages",
            )


_WEIGHT = "task_loss_weight"


def _check_until(
    item: Mapping[str, Json], path: Path, *, begin: int, has_next: bool
) -> Iterator[Finding]:
    until = step_of(item.get(UNTIL))
    if item.get(UNTIL) is None and has_next:
        yield Finding(
            path,
            "'until' is missing, and another period follows",
            "write until: the optimizer step after which the next one begins",
        )
    elif until is not None and 0 < until <= begin:  # the schema reports what is not a step
        yield Finding(
            (*path, UNTIL),
            f"found {until}, expected a step after {begin}, with which this period begins",
            "steps are counted from the beginning of training, not of the period",
        )


def _check_schedule(stage: Place, *, begin: int, end: int) -> Iterator[Finding]:
    schedule = stage.data.get("schedule")
    if not isinstance(schedule, dict):
        return
    counts = [step_of(schedule.get(key, value)) for key, value in _COUNTS.items()]
    first, every, times = counts
    if first is None or every is None or times is None:
        return
    steps = first + every * times
    if begin + steps > end:
        yield Finding(
            (*stage.path, "schedule"),
            f"the schedule takes {steps} steps, and its period has {end - begin}, from {begin} to "
            f"{end}",
            f"write until: {begin + steps} or later, or update more often",
        )


_COUNTS = {"begin": 0, "every": 1, "times": 1}


def _too_late(stage: Place, fixed: Place, root: Path) -> Finding:
    earlier = spell_path(fixed.path[len(root) :])
    return Finding(
        (*stage.path, "algorithm"),
        f"pruning begins after {earlier} ({fixed.data['algorithm']}) has chosen its scales, which "
        "would be those of other weights",
        "prune first, or quantize by an algorithm whose scales follow training, such as qat",
    )


def _is_fixed(stage: Place) -> bool:
    """Tell whether a stage chooses scales once, when it begins."""
    algorithm = stage.data.get("algorithm")
    if stage.method != "quantization" or not isinstance(algorithm, str):
        return False
    try:
        return registry().quantizers.info(algorithm).needs != "training"
    except PluginError:  # the schema says already that there is no such algorithm
        return False


def step_of(value: Json) -> int | None:
    """Return a whole number of steps, or None where something else is written.

    Args:
        value: plain JSON data; need not fit the schema.
    """
    is_whole = isinstance(value, (int, float)) and not isinstance(value, bool)
    return int(value) if is_whole and value == int(value) else None
