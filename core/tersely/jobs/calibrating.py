"""The calibration batches of a job and the example inputs of its model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sized
from typing import Any

import attrs

from tersely.document.job import Job
from tersely.errors import ConfigError, Problem
from tersely.jobs.generators import seed_generators
from tersely.jobs.references import Call, load_reference

KEY = "labels"
"""What the labels are called in a batch that is a mapping."""


def calibration_batches(job: Job, calibration: Call | None) -> Iterable[object]:
    """Return the batches of ``data.calibration`` without their labels; none where there are none.

    Args:
        job: the job.
        calibration: what its reference stands for.
    """
    batches: Iterable[object] = () if calibration is None else calibration()
    return WithoutLabels(batches, job.source) if job.data.labels else batches


def example_inputs(job: Job, *, example: Call | None, calibration: Call | None) -> Any:
    """Return what a job's model is run with where its graph is needed.

    Args:
        job: the job.
        example: what its ``data.example`` stands for, or None for the first calibration batch.
        calibration: what its ``data.calibration`` stands for, or None.

    Raises:
        ConfigError: there is neither, or it gives nothing.
    """
    seed_generators(job.seed)
    if example is not None:
        found, path = example(), "data.example"
    elif calibration is not None:
        found, path = next(iter(calibration_batches(job, calibration)), None), "data.calibration"
    else:
        message = "the job has neither data.example nor data.calibration to run its model with"
        hint = (
            "write data: {example: 'module:callable'}, which returns what the model is called with"
        )
        raise ConfigError([Problem("data", message, hint)], source=job.source)
    if found is None:
        message = "returned nothing, expected example inputs of the model"
        hint = "return a tensor, a list of arguments or a mapping of keyword arguments"
        raise ConfigError([Problem(path, message, hint)], source=job.source)
    return found


def example_named(job: Job, *, reference: str | None = None) -> Any:
    """Import what gives a job its example inputs, and return them; call it inside `job_imports`.

    Args:
        job: the job.
        reference: ``module:callable`` in place of the job's own.

    Raises:
        ConfigError: it cannot be imported, there is none, or it gives nothing.
    """

    def find(written: str | None, path: str) -> Call | None:
        if written is None:
            return None
        return load_reference(written, path=path, folder=job.directory)

    example = find(reference, "--example") or find(job.data.example, "data.example")
    calibration = None if example else find(job.data.calibration, "data.calibration")
    return example_inputs(job, example=example, calibration=calibration)


@attrs.frozen(eq=False)
class WithoutLabels:
    """The user's batches, each without its labels; as long as they are, where they know that.

    Attributes:
        batches: tuples or lists whose last value is the labels, or mappings with ``labels``.
        source: the job's file, for errors.
    """

    batches: Iterable[Any]
    source: str | None

    def __iter__(self) -> Iterator[Any]:
        return (self._inputs(batch) for batch in self.batches)

    def __len__(self) -> int:
        if isinstance(self.batches, Sized):
            return len(self.batches)
        raise TypeError("the number of batches is not known")

    def _inputs(self, batch: Any) -> Any:
        if isinstance(batch, Mapping) and KEY in batch:
            return {key: value for key, value in batch.items() if key != KEY}
        if isinstance(batch, (list, tuple)) and len(batch) > 1:
            inputs = batch[:-1]
            return inputs[0] if len(inputs) == 1 else inputs
        found = "a mapping" if isinstance(batch, Mapping) else f"a {type(batch).__name__}"
        problem = Problem(
            "data.labels",
            f"a batch of data.calibration is {found} without labels",
            f"return (inputs, labels) or a mapping with {KEY!r}, or leave data.labels out",
        )
        raise ConfigError([problem], source=self.source)
