"""What a job's model takes on disk, before and after."""

from __future__ import annotations

import attrs
from torch import nn

from tersely.jobs.output.checkpoint import own_tensors
from tersely.jobs.run import Run
from tersely.storage.tensor_file import written_size
from tersely.storage.weights import WEIGHTS

DENSE = "dense"


def size_on_disk(model: nn.Module) -> int | None:
    """Return how many bytes the tensors of a model take in a safetensors file.

    Args:
        model: the model.

    Returns:
        Bytes; None where the file cannot hold one of its tensors.
    """
    try:
        return written_size(own_tensors(model))
    except TypeError:
        return None


def look_at_files(run: Run) -> Run:
    """Put the sizes of the dense model, of the finished one and of every export into the report."""
    if run.report is None:
        return run
    sizes = {WEIGHTS: (run.folder / WEIGHTS).stat().st_size}
    if run.dense_bytes is not None:
        sizes = {DENSE: run.dense_bytes, **sizes}
    sizes |= {one.paths[0].name: one.bytes for one in run.exported}
    return attrs.evolve(run, report=attrs.evolve(run.report, files=sizes))
