"""Stages that end with removing what they have masked: how that is read, and when it can be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import attrs

from tersely.document.entries import PERIODS, Place, holder_of, recipe_of, recipe_path, stages_in
from tersely.document.path import Path, spell_path
from tersely.document.reading.integers import whole_numbers
from tersely.document.reading.positions import Finding
from tersely.document.recipe import AUTO, COUNTED_BUDGETS, Schedule, Shrink
from tersely.document.rules.periods import UNTIL, Period, step_of
from tersely.document.schemas.schema import Kind
from tersely.json_value import Json

SHRINK = "shrink"
_GROUPS = "dependency_groups"
_BUDGET = "budget"


def shrink_of(stage: Mapping[str, Json], period: Period) -> Shrink | None:
    """Return how a pruning stage ends, by its own key or by its period's; None if not by shrinking.

    Args:
        stage: the checked stage.
        period: the period that it is in.
    """
    own = stage.get(SHRINK)
    return build_shrink(own if own or not period.path else period.data.get(SHRINK))


def build_shrink(written: Json) -> Shrink | None:
    """Return what a key ``shrink`` asks for, or None where it asks for nothing.

    Args:
        written: its checked value: a truth value, or a mapping.
    """
    if written is None or written is False:
        return None
    keys = written if isinstance(written, Mapping) else {}
    return Shrink(
        round_to=whole_numbers(keys.get("round_to", 1)),
        approximate=keys.get("approximate", False),
    )


def check_shrinks(data: Json, kind: Kind) -> Iterator[Finding]:
    """Yield stages that cannot end by shrinking, and those that would do so in two ways.

    Args:
        data: plain JSON data without what counts as absent; need not fit the schema.
        kind: what the document is.
    """
    recipe, root = recipe_of(data, kind), recipe_path(kind)
    pruning = [*_pruning_in(recipe, root, begin=0, end=None)]
    items = recipe.get(PERIODS)
    begin = 0
    for index, item in enumerate(items if isinstance(items, list) else ()):
        if not isinstance(item, dict):
            return
        path = (*root, PERIODS, index)
        end = step_of(item.get(UNTIL))
        own = [*_pruning_in(item, path, begin=begin, end=end)]
        yield from _check_period(item, path, own)
        pruning += own
        if end is None:
            break
        begin = end
    yield from _check_together(pruning)
    yield from _check_growth(pruning)


@attrs.frozen
class _Pruning:
    """A pruning stage, and the steps between which it is active."""

    stage: Place
    path: Path
    shrink: Json
    begin: int
    end: int | None


def _pruning_in(
    holder: Mapping[str, Json], path: Path, *, begin: int, end: int | None
) -> Iterator[_Pruning]:
    shared = holder.get(SHRINK) if path and path[-2:-1] == (PERIODS,) else None
    for stage in stages_in(holder, path):
        if stage.method == "pruning":
            own = stage.data.get(SHRINK)
            place = (*stage.path, SHRINK) if own else (*path, SHRINK)
            yield _Pruning(stage, place, own or shared, begin, end)


def _check_period(
    item: Mapping[str, Json], path: Path, own: Sequence[_Pruning]
) -> Iterator[Finding]:
    if not item.get(SHRINK):
        return
    if not own:
        yield Finding(
            (*path, SHRINK),
            "this period has no pruning stage, so it masks nothing that could be removed",
            "write shrink in the stage or period that prunes",
            "key",
        )
    for one in own:
        if one.stage.data.get(SHRINK):
            yield Finding(
                one.path,
                f"found 'shrink' here and in {spell_path(path[-2:])}",
                "write it in one of the two",
                "key",
            )


def _check_together(pruning: Sequence[_Pruning]) -> Iterator[Finding]:
    first: dict[int | None, _Pruning] = {}
    for one in pruning:
        if not one.shrink:
            continue
        other = first.setdefault(one.end, one)
        if _meaning(other.shrink) != _meaning(one.shrink):
            yield Finding(
                one.path,
                f"found {_spelled(one.shrink)}, and {spell_path(other.path)}, which ends at the "
                f"same time, has {_spelled(other.shrink)}",
                "stages that end at the same step are shrunk together: write the same in both",
            )


def _check_growth(pruning: Sequence[_Pruning]) -> Iterator[Finding]:
    for one in pruning:
        if not one.shrink or one.end is None:
            continue
        for other in pruning:
            last = _last_update(other)
            if other.begin < one.end and last is not None and last > one.end:
                yield Finding(
                    one.path,
                    f"the period ends at step {one.end}, and {spell_path(other.stage.path)} masks "
                    f"more until step {last}",
                    f"write until: {last} or later, or let that schedule end sooner",
                )


def _last_update(one: _Pruning) -> int | None:
    schedule = one.stage.data.get("schedule")
    if not isinstance(schedule, dict):
        return None
    first, every, times = (step_of(schedule.get(key, usual)) for key, usual in _COUNTS.items())
    if first is None or every is None or times is None:  # the schema says so
        return None
    return one.begin + Schedule(name="", begin=first, every=every, times=times).end


_COUNTS = {"begin": 0, "every": 1, "times": 1}


def check_example(
    job: Json, kind: Kind, *, recipe: Json = None, path: Path | None = None
) -> Iterator[Finding]:
    """Yield what in a job needs example inputs, where it has none.

    Args:
        job: plain JSON data without what counts as absent; need not fit the schema.
        kind: what the document is; only jobs have data.
        recipe: the recipe of a file that the job names; by default the one inside it.
        path: where to point for a recipe in a file of its own.
    """
    if kind != "job" or not isinstance(job, dict):
        return
    data = job.get("data")
    if isinstance(data, dict) and (data.get("example") or data.get("calibration")):
        return
    if job.get("benchmark") is not None:
        yield Finding(("benchmark",), *_without_example("benchmark"))
        return
    for found in _asking(*holder_of(job, recipe)):
        yield Finding(
            found if path is None else path,
            *_without_example(spell_path(found[-1:])),
        )
        return


def _without_example(key: str) -> tuple[str, str]:
    return (
        f"{key!r} runs the model on example inputs, and the job has none",
        "write data: {example: 'module:callable'}, which returns what the model is called "
        "with, or data: {calibration: ...}, whose first batch is then used",
    )


def _asking(holder: Json, kind: Kind) -> Iterator[Path]:
    recipe, root = recipe_of(holder, kind), recipe_path(kind)
    places = [(recipe, root)]
    items = recipe.get(PERIODS)
    for index, item in enumerate(items if isinstance(items, list) else ()):
        if isinstance(item, dict):
            places.append((item, (*root, PERIODS, index)))
    for item, path in places:
        if item.get(SHRINK):
            yield (*path, SHRINK)
        for stage in stages_in(item, path):
            yield from ((*stage.path, key) for key in (_GROUPS, SHRINK) if stage.data.get(key))
            yield from _fuses(stage)
            yield from _budgets(stage)


def _fuses(stage: Place) -> Iterator[Path]:
    entries = stage.data.get("config_list")
    places: list[tuple[Path, Json]] = [(stage.path, stage.data)]
    for index, entry in enumerate(entries if isinstance(entries, list) else ()):
        places.append(((*stage.path, "config_list", index), entry))
    for path, data in places:
        if isinstance(data, dict) and data.get("fuse_names") == AUTO:
            yield (*path, "fuse_names")


def _budgets(stage: Place) -> Iterator[Path]:
    entries = stage.data.get("config_list")
    for index, entry in enumerate(entries if isinstance(entries, list) else ()):
        if not isinstance(entry, dict):
            continue
        path = (*stage.path, "config_list", index)
        settings = entry.get("target_settings")
        nested = settings.items() if isinstance(settings, dict) else ()
        places = [(path, entry), *(((*path, "target_settings", key), one) for key, one in nested)]
        for place, setting in places:
            if isinstance(setting, dict) and setting.get(_BUDGET) in COUNTED_BUDGETS:
                yield (*place, _BUDGET)


def _meaning(written: Json) -> Shrink | None:
    try:
        return build_shrink(written)
    except (TypeError, ValueError):  # the schema says so
        return None


def _spelled(written: Json) -> str:
    found = _meaning(written)
    if found is None:
        return str(written)
    return f"round_to {found.round_to}" + (" and approximate" if found.approximate else "")
