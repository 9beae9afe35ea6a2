"""What a job measures at its end: the dense model, the finished one, and every export that runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from tersely.contracts.exporter import RunsExport
from tersely.document.job import Job, Measuring
from tersely.errors import ConfigError, Problem
from tersely.exporting.export import make_exporter
from tersely.jobs.calibrating import example_inputs
from tersely.jobs.measuring.bytes_on_disk import DENSE
from tersely.jobs.measuring.layers import dense_model
from tersely.jobs.run import Run
from tersely.reporting.measuring.benchmark import benchmark

_SEVERAL = 2


def benchmark_all(run: Run) -> Run:
    """Measure times, and put them into the report."""
    wanted = run.job.benchmark or Measuring()
    example = example_inputs(run.job, example=run.calls.example, calibration=run.calls.calibration)
    threads = wanted.threads or torch.get_num_threads()
    dense = dense_model(run)
    calls: dict[str, Callable[..., object]] = {DENSE: dense, "finished": run.model}
    if wanted.compile:
        calls |= {f"{name}, compiled": torch.compile(call) for name, call in calls.items()}
    calls |= _exports(run, threads)
    found = []
    for size in wanted.batch_sizes or (None,):
        title = "the example inputs" if size is None else f"batch of {size}"
        inputs = example if size is None else resized(example, size)
        result = benchmark(calls, inputs, threads=threads, seconds=wanted.seconds, title=title)
        run.display.line(str(result))
        found.append(result)
    if run.report is None:
        raise RuntimeError("times are part of a report, and there is none yet")
    return attrs.evolve(run, report=attrs.evolve(run.report, benchmarks=tuple(found)))


def check_sizes(job: Job) -> None:
    """Refuse to measure several batch sizes of an export that takes one, before anything begins.

    Args:
        job: the job.

    Raises:
        ConfigError: an export that runs here has fixed shapes.
    """
    sizes = () if job.benchmark is None else tuple(dict.fromkeys(job.benchmark.batch_sizes))
    if len(sizes) < _SEVERAL:
        return
    problems = [
        Problem(
            f"export[{number}]",
            f"the benchmark has {len(sizes)} batch sizes, and what {one.format} writes takes that "
            "of the example inputs alone",
            "add dynamic_shapes: batch to the export, or leave out benchmark.batch_sizes",
        )
        for number, one in enumerate(job.export)
        if one.dynamic_shapes is None
        and isinstance(make_exporter(one.format, one.options).exporter, RunsExport)
    ]
    if problems:
        raise ConfigError(problems, source=job.source)


def resized(inputs: Any, size: int) -> Any:
    """Repeat or cut example inputs to a number of samples.

    Args:
        inputs: tensors in any structure. Those as long along their first dimension as the first
            tensor there is are batches, the others stay.
        size: how many samples there are to be.
    """
    lengths: list[int] = []
    tree_map(lambda leaf: lengths.extend(leaf.shape[:1]) if _has_rows(leaf) else None, inputs)
    if not lengths:
        return inputs

    def of_size(leaf: Any) -> Any:
        if not _has_rows(leaf) or len(leaf) != lengths[0]:
            return leaf
        return leaf[torch.arange(size, device=leaf.device) % lengths[0]]

    return tree_map(of_size, inputs)


def _has_rows(leaf: object) -> bool:
    return isinstance(leaf, Tensor) and leaf.ndim > 0 and len(leaf) > 0


def _exports(run: Run, threads: int) -> dict[str, Callable[..., object]]:
    calls: dict[str, Callable[..., object]] = {}
    for wanted, written in zip(run.job.export, run.exported, strict=True):
        exporter = make_exporter(wanted.format, wanted.options).exporter
        if isinstance(exporter, RunsExport):
            calls[written.paths[0].name] = exporter.load(written.paths[0], threads=threads)
    return calls
