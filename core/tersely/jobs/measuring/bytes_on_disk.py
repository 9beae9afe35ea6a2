"""What a job's model takes on disk, before and after."""

from __future__ import annotations

from pathlib import Path

import attrs
from torch import nn

from tersely.jobs.output.checkpoint import own_tensors
from tersely.jobs.run import Run
from tersely.storage.tensor_file import write_tensors

DENSE = "dense"
FINISHED = "model.safetensors"


def size_on_disk(model: nn.Module, folder: Path) -> int | None:
    """Write a model as the finished one is written, look, and remove it again.

    Args:
        model: the model.
        folder: where there is room for it.

    Returns:
        Bytes; None where the file cannot hold one of its tensors.
    """
    place = folder / "dense.safetensors"
    try:
        write_tensors(place, own_tensors(model))
        return place.stat().st_size
    except TypeError:
        return None
    finally:
        place.unlink(missing_ok=True)


def look_at_files(run: Run) -> Run:
    """Put the sizes of the dense model, of the finished one and of every export into the report."""
    if run.report is None:
        return run
    sizes = {FINISHED: (run.folder / FINISHED).stat().st_size}
    if run.dense_bytes is not None:
        sizes = {DENSE: run.dense_bytes, **sizes}
    sizes |= {one.paths[0].name: one.bytes for one in run.exported}
    return attrs.evolve(run, report=attrs.evolve(run.report, files=sizes))
