"""Jobs whose algorithms rank by what training shows, and that do not train."""

from __future__ import annotations

from collections.abc import Iterator

from laconic.document.entries import stages_of
from laconic.document.path import Path
from laconic.document.positions import Finding
from laconic.document.schema import Kind
from laconic.errors import PluginError
from laconic.registry.descriptors import Json
from laconic.registry.registry import registry

NEEDS_TRAINING = ("gradients", "training")
"""What an algorithm may need that only a loop that trains can give."""


def check_training(
    job: Json, kind: Kind, *, recipe: Json = None, path: Path | None = None
) -> Iterator[Finding]:
    """Yield the algorithms of a job that need its ``train`` or ``loop``, where it has neither.

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
    stages = stages_of(job, "job") if recipe is None else stages_of(recipe, "recipe")
    for stage in stages:
        algorithm = stage.data.get("algorithm")
        if stage.method == "pruning" and isinstance(algorithm, str) and _is_trained(algorithm):
            yield Finding(
                (*stage.path, "algorithm") if path is None else path,
                f"{algorithm!r} ranks by what training shows, and the job has neither 'train' nor "
                "'loop'",
                "write loop: {epochs: ..., lr: ..., loss: ...} and data: {train: ...}, or train: "
                "'module:callable', your own loop, which takes the model and the session",
            )


def _is_trained(algorithm: str) -> bool:
    try:
        return registry().pruners.info(algorithm).needs in NEEDS_TRAINING
    except PluginError:  # the schema says already that there is no such algorithm
        return False
