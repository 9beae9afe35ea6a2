"""What a job's report says of each layer: its error, its weights, and what a call costs."""

from __future__ import annotations

import attrs
from torch import nn

from tersely.document.job import Job
from tersely.jobs.calibrating import example_inputs
from tersely.jobs.generators import seed_generators
from tersely.jobs.run import Run
from tersely.reporting.measuring.layers import compare_layers, count_macs, largest_weights
from tersely.reporting.report import Report
from tersely.reporting.rows import Remark

_LARGEST = 4 * 2**30
"""Bytes of parameters above which no second copy of the model is made."""


def has_inputs(job: Job) -> bool:
    """Tell whether a job has something to call its model with.

    Args:
        job: the job.
    """
    return job.data.example is not None or job.data.calibration is not None


def look_at_layers(run: Run) -> Run:
    """Compare each layer with that of the dense model, built again, on the example inputs."""
    if run.report is None:
        raise RuntimeError("layers are part of a report, and there is none yet")
    size = sum(one.numel() * one.element_size() for one in run.model.parameters())
    if size > _LARGEST:
        return _without(
            run, f"the model takes {size / 2**30:.1f} GiB, and a dense one as much again"
        )
    batch = example_inputs(run.job, example=run.calls.example, calibration=run.calls.calibration)
    dense = dense_model(run)
    if dense is run.model:
        return _without(run, "the job's model is the same object at every call")
    macs = {"before": count_macs(dense, batch), "after": count_macs(run.model, batch)}
    layers = compare_layers(dense, run.model, _weights(run.report), batch)
    return attrs.evolve(run, report=attrs.evolve(run.report, layers=layers, macs=macs))


def _without(run: Run, why: str) -> Run:
    report = run.report or run.attached.report()
    remark = Remark(kind="hint", text=f"layers are not compared with the dense model: {why}")
    return attrs.evolve(run, report=attrs.evolve(report, remarks=(*report.remarks, remark)))


def dense_model(run: Run) -> nn.Module:
    """Build the model of a job again, as it was before anything was done to it.

    Args:
        run: the run.
    """
    seed_generators(run.job.seed)
    model = run.calls.model(**run.job.model_args)
    if not isinstance(model, nn.Module):
        raise RuntimeError("the job built a model before, and now something else")
    return model


def _weights(report: Report) -> dict[str, str]:
    return largest_weights(
        [
            (row.module, row.target, (row.elements or 0) if row.is_stored else 0)
            for row in report.rows
            if row.method != "distillation"
        ]
    )
