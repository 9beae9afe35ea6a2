"""Builds recipes, entries and jobs from data that has been checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs

from tersely.document.entries import COMMON_KEYS, EXCLUDES, SELECTORS, Place, stages_in
from tersely.document.job import Export, Job, JobData, Measuring, ObserverReference
from tersely.document.path import Path as DataPath
from tersely.document.path import spell_path
from tersely.document.presets import (
    PRESET,
    RUNTIME,
    excludes_of_preset,
    preset_entries,
    preset_note,
)
from tersely.document.reading.integers import integers_by_schema, whole_numbers
from tersely.document.reading.positions import Document
from tersely.document.recipe import AUTO, NONE, Entry, FuseNames, Recipe, Schedule, Stage
from tersely.document.rules.loop import build_loop
from tersely.document.rules.periods import Period, periods_of
from tersely.document.rules.shrinking import shrink_of
from tersely.json_value import Json
from tersely.registry.descriptors import METHODS
from tersely.registry.registry import registry

_INTEGER_KEYS = (
    "internal_metric_block",
    "dependency_parts",
    "granularity",
    "align",
    "global_group_id",
    "dependency_group_id",
)
_ENTRY_FIELDS = (*COMMON_KEYS, "fuse_names")


@attrs.frozen
class Site:
    """The place of a recipe or a config list.

    Attributes:
        document: the document it is part of.
        root: where in the document it begins; paths in recipes are counted from there.
    """

    document: Document
    root: DataPath = ()

    def line(self, path: DataPath) -> int | None:
        """Return the line on which something inside begins, or None for Python data."""
        mark = self.document.mark((*self.root, *path))
        return mark.line if mark else None

    def written(self) -> Json:
        """Return the plain data as it was written."""
        data = self.document.data
        for key in self.root:
            data = data[key]
        return data


def build_recipe(data: Mapping[str, Json], site: Site) -> Recipe:
    """Build a recipe from checked data.

    Args:
        data: the recipe without what counts as absent.
        site: its place.
    """
    periods = periods_of(data)
    stages = [
        _build_stage(stage, site, period)
        for method in METHODS
        for period in periods
        for stage in stages_in(period.data, period.path)
        if stage.method == method
    ]
    return Recipe(
        stages=tuple(stages),
        requires=tuple(data.get("requires", ())),
        strict=data.get("strict", False),
        on_conflict=data.get("on_conflict"),
        document=site.written(),
        source=site.document.source,
    )


def build_entries(
    config_list: Sequence[Json], site: Site, *, path: DataPath = ()
) -> tuple[Entry, ...]:
    """Build the entries of a checked config list.

    Args:
        config_list: the entries without what counts as absent.
        site: the place of the recipe or the bare config list.
        path: the path of the config list from there.
    """
    return tuple(
        _build_entry(entry, site, path=(*path, index)) for index, entry in enumerate(config_list)
    )


def build_job(
    data: Mapping[str, Json], document: Document, *, directory: Path, recipe: Recipe
) -> Job:
    """Build a job from checked data.

    Args:
        data: the job without what counts as absent.
        document: the document that contains it.
        directory: the job's folder, absolute.
        recipe: its recipe.
    """
    return Job(
        model=data["model"],
        model_args=data.get("model_args", {}),
        teacher=data.get("teacher"),
        teacher_args=data.get("teacher_args", {}),
        data=JobData(**data.get("data", {})),
        train=data.get("train"),
        loop=build_loop(data.get("loop")),
        recipe=recipe,
        output=directory / data["output"],
        export=tuple(_build_export(export) for export in data.get("export", ())),
        benchmark=_build_benchmark(data.get("benchmark")),
        observers=tuple(ObserverReference(**observer) for observer in data.get("observers", ())),
        seed=whole_numbers(data.get("seed")),
        directory=directory,
        document=document.data,
        source=document.source,
    )


def _build_stage(place: Place, site: Site, period: Period) -> Stage:
    method, path, data = place.method, place.path, place.data
    algorithm = data.get("algorithm", "")
    options = data.get("options", {})
    if method == "pruning":
        options = integers_by_schema(options, registry().pruners.info(algorithm).options)
    elif method == "quantization":
        options = integers_by_schema(options, registry().quantizers.info(algorithm).options)
    return Stage(
        method=method,
        path=spell_path(path),
        algorithm=algorithm,
        options=options,
        entries=(
            *_preset_entries(data, site, path=(*path, PRESET)),
            *build_entries(data.get("config_list", ()), site, path=(*path, "config_list")),
        ),
        preset=preset_note(data) if PRESET in data else "",
        runtime=data.get(RUNTIME, ""),
        schedule=_build_schedule(data["schedule"], period) if "schedule" in data else None,
        task_loss_weight=(float(data["task_loss_weight"]) if "task_loss_weight" in data else None),
        begin=period.begin,
        end=period.end,
        unreached=data.get("unreached", "error"),
        hold=data.get("hold", "read"),
        dependency_groups=data.get("dependency_groups"),
        fuse_names=_build_fuse_names(data.get("fuse_names", ())),
        folds_by_preset=_folds_by_preset(data),
        shrink=shrink_of(data, period) if method == "pruning" else None,
    )


def _preset_entries(data: Mapping[str, Json], site: Site, *, path: DataPath) -> tuple[Entry, ...]:
    if PRESET not in data:
        return ()
    line, implied = site.line(path), excludes_of_preset(data)
    return tuple(
        attrs.evolve(entry, line=line, is_preset=True, implied=implied)
        for entry in build_entries(preset_entries(data), site, path=path)
    )


def _build_schedule(data: Mapping[str, Json], period: Period) -> Schedule:
    counts = {key: whole_numbers(data[key]) for key in ("begin", "every", "times") if key in data}
    options = registry().schedules.info(data["name"]).options
    schedule = Schedule(
        name=data["name"], options=integers_by_schema(data.get("options", {}), options), **counts
    )
    return attrs.evolve(schedule, begin=period.begin + schedule.begin)


def _build_benchmark(data: Mapping[str, Json] | None) -> Measuring | None:
    if data is None:
        return None
    return Measuring(
        batch_sizes=tuple(whole_numbers(size) for size in data.get("batch_sizes", ())),
        seconds=float(data.get("seconds", 5.0)),
        threads=whole_numbers(data.get("threads")),
        compile=data.get("compile", False),
    )


def _build_export(data: Mapping[str, Json]) -> Export:
    schema = registry().exporters.info(data["format"]).options
    return Export(
        format=data["format"],
        options=integers_by_schema(data.get("options", {}), schema),
        dynamic_shapes=data.get("dynamic_shapes"),
    )


def _build_entry(data: Mapping[str, Json], site: Site, *, path: DataPath) -> Entry:
    names = {key: tuple(data.get(key, ())) for key in (*SELECTORS, *EXCLUDES)}
    settings = data.get("target_settings", {})
    return Entry(
        path=spell_path(path),
        target_names=tuple(data["target_names"]) if "target_names" in data else None,
        target_settings={name: _build_setting(setting) for name, setting in settings.items()},
        shortcuts=_build_setting(
            {key: value for key, value in data.items() if key not in _ENTRY_FIELDS}
        ),
        fuse_names=_build_fuse_names(data.get("fuse_names", ())),
        line=site.line(path),
        is_preset=False,
        **names,
    )


def _build_fuse_names(written: Json) -> FuseNames:
    if written == AUTO:
        return AUTO
    return () if written == NONE else tuple(tuple(group) for group in written)


def _folds_by_preset(stage: Mapping[str, Json]) -> bool:
    written = (stage, *stage.get("config_list", ()))
    return PRESET in stage and not any("fuse_names" in one for one in written)


def _build_setting(data: Mapping[str, Json]) -> dict[str, Json]:
    return {
        key: whole_numbers(value) if key in _INTEGER_KEYS else value for key, value in data.items()
    }
