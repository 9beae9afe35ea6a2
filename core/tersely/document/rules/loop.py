"""The built-in training loop of a job: how it is read, and which keys it needs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tersely.contracts.settings import DEFAULT_LOSS
from tersely.document.entries import PERIODS, Place, holder_of, recipe_of, stages_of
from tersely.document.job import Loop
from tersely.document.path import Path
from tersely.document.reading.integers import whole_numbers
from tersely.document.reading.positions import Finding
from tersely.document.schemas.schema import Kind
from tersely.json_value import Json
from tersely.registry.registry import registry

NO_TASK = "none"
"""The loss that leaves training to what the session adds."""


def build_loop(data: Mapping[str, Json] | None) -> Loop | None:
    """Build a loop from checked data.

    Args:
        data: the value of ``loop`` without what counts as absent, or None.
    """
    if data is None:
        return None
    written = data.get("optimizer", "adamw")
    named = written if isinstance(written, Mapping) else {written: {}}
    ((optimizer, options),) = named.items()
    clip_norm = data.get("clip_norm")
    return Loop(
        epochs=whole_numbers(data["epochs"]),
        optimizer=optimizer,
        optimizer_options=options,
        lr=float(data["lr"]),
        loss=data["loss"],
        lr_schedule=data.get("lr_schedule", "constant"),
        clip_norm=None if clip_norm is None else float(clip_norm),
    )


def check_loop(
    job: Json, kind: Kind, *, recipe: Json = None, path: Path | None = None
) -> Iterator[Finding]:
    """Yield what a job's loop lacks: batches, a teacher, something to learn from.

    Args:
        job: plain JSON data without what counts as absent; need not fit the schema.
        kind: what the document is; only jobs train.
        recipe: the recipe of a file that the job names; by default the one inside it.
        path: where to point for a recipe in a file of its own.
    """
    if kind != "job" or not isinstance(job, dict):
        return
    yield from _check_batches(job)
    loop = job.get("loop")
    if not isinstance(loop, dict) or (recipe is None and not isinstance(job.get("recipe"), dict)):
        return
    holder = holder_of(job, recipe)
    distilling = [one for one in stages_of(*holder) if one.method == "distillation"]
    if loop.get("loss") == NO_TASK:
        yield from _check_distilled(recipe_of(*holder), has_any=bool(distilling))
    taught = [one for one in distilling if _compares(one.data)]
    if taught and job.get("teacher") is None:
        yield _lacks_teacher(taught[0], path)


def _compares(stage: Mapping[str, Json]) -> bool:
    """Tell whether a loss of a distillation stage compares with a teacher."""
    entries = stage.get("config_list")
    return any(
        _needs_teacher(keys.get("apply_method", DEFAULT_LOSS))
        for entry in (entries if isinstance(entries, list) else [])
        if isinstance(entry, dict)
        for keys in (entry, *_with_losses(entry.get("target_settings")))
    )


def _with_losses(settings: Json) -> Iterator[Mapping[str, Json]]:
    for keys in settings.values() if isinstance(settings, dict) else ():
        if isinstance(keys, dict) and keys.get("apply_method") is not None:
            yield keys


def _needs_teacher(method: Json) -> bool:
    name = str(next(iter(method), "")) if isinstance(method, dict) else str(method)
    losses = registry().losses
    # A name that no plugin provides is reported elsewhere.
    return name not in losses or losses.info(name).needs == "teacher"


def _check_distilled(recipe: Mapping[str, Json], *, has_any: bool) -> Iterator[Finding]:
    """Yield a finding unless distillation lasts, outside of the periods or in each of them."""
    periods = recipe.get(PERIODS)
    lasts = recipe.get(_DISTILLATION) is not None or (
        isinstance(periods, list)
        and all(isinstance(one, dict) and one.get(_DISTILLATION) for one in periods)
    )
    if not lasts:
        lacking = "a period without distillation" if has_any else "no distillation"
        yield Finding(
            ("loop", "loss"),
            f"'none' trains only on losses that the session adds, but the recipe has {lacking}",
            "name a loss such as cross_entropy, or add a distillation stage"
            + (" outside of 'stages'" if has_any else ""),
        )


_DISTILLATION = "distillation"


def _check_batches(job: Mapping[str, Json]) -> Iterator[Finding]:
    data = job.get("data")
    has_batches = isinstance(data, dict) and data.get("train") is not None
    if job.get("loop") is not None and not has_batches:
        yield Finding(
            ("loop",),
            "'loop' trains on the batches of data.train, and the job has none",
            "write data: {train: 'module:callable'}; it returns the batches of one epoch",
            "key",
        )
    if has_batches and job.get("loop") is None:
        is_own = job.get("train") is not None
        yield Finding(
            ("data", "train"),
            "'train' gives its batches to 'loop', and the job has none",
            "your own loop in 'train' gets its batches by itself: remove data.train"
            if is_own
            else "write loop: {epochs: ..., lr: ..., loss: ...}",
            "key",
        )


def _lacks_teacher(stage: Place, path: Path | None) -> Finding:
    return Finding(
        stage.path if path is None else path,
        "the loop distils from a teacher, and the job has no 'teacher'",
        "write teacher: 'module:callable', which builds it",
    )
