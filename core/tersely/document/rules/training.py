"""Jobs that need training, because algorithms rank by it or stages begin in it, and have none."""

from __future__ import annotations

from collections.abc import Iterator

from tersely.document.entries import PERIODS, holder_of, recipe_of, recipe_path, stages_of
from tersely.document.path import Path
from tersely.document.reading.positions import Finding
from tersely.document.schemas.schema import Kind
from tersely.errors import PluginError
from tersely.json_value import Json
from tersely.registry.registry import registry

NEEDS_TRAINING = ("gradients", "training")
"""What an algorithm may need that only a loop that trains can give."""


_WRITE_A_LOOP = (
    "write loop: {epochs: ..., lr: ..., loss: ...} and data: {train: ...}, or train: "
    "'module:callable', your own loop, which takes the model and the session"
)


def check_training(
    job: Json, kind: Kind, *, recipe: Json = None, path: Path | None = None
) -> Iterator[Finding]:
    """Yield what in a job needs its ``train`` or ``loop``, where it has neither.

    Args:
        job: plain JSON data without what counts as absent; need not fit the schema.
        kind: what the document is; only jobs train.
        recipe: the recipe of a file that the job names; by default the one inside it.
        path: where to point for a recipe in a file of its own.
    """
    if kind != "job" or not isinstance(job, dict):
        return
    if job.get("train") is not None or job.get("loop") is not None:
        return
    holder = holder_of(job, recipe)
    periods = recipe_of(*holder).get(PERIODS)
    if isinstance(periods, list) and len(periods) > 1:
        yield Finding(
            (*recipe_path(kind), PERIODS, 1) if path is None else path,
            "the second period begins during training, but the job has neither 'train' nor 'loop'",
            _WRITE_A_LOOP,
        )
    for stage in stages_of(*holder):
        algorithm = stage.data.get("algorithm")
        if stage.method == "pruning" and isinstance(algorithm, str) and _is_trained(algorithm):
            yield Finding(
                (*stage.path, "algorithm") if path is None else path,
                f"{algorithm!r} ranks by what it observes in training, but the job has neither "
                "'train' nor 'loop'",
                _WRITE_A_LOOP,
            )


def _is_trained(algorithm: str) -> bool:
    try:
        return registry().pruners.info(algorithm).needs in NEEDS_TRAINING
    except PluginError:  # the schema says already that there is no such algorithm
        return False
