"""A job under way: what is known so far, and what a phase leaves for a later run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
from torch import nn

from tersely.document.job import Job
from tersely.exporting.export import Exported
from tersely.jobs.output.checkpoint import save_checkpoint
from tersely.jobs.output.folders import CHECKPOINT
from tersely.jobs.output.record import RunRecord, write_record
from tersely.jobs.progress.displays import Display
from tersely.jobs.progress.observers import JobObservers
from tersely.jobs.references import References
from tersely.planning.plan import Plan
from tersely.reporting.report import Report
from tersely.session.session import Session


def remember(run: Run, phase: Phase) -> Run:
    """Return the run with a finished phase in its record, and write the record if it lasts.

    Args:
        run: the run after the phase.
        phase: the phase.
    """
    if not phase.lasting:
        return run
    record = run.record.with_done(phase.lasting, run.record.metrics)
    write_record(run.folder, record)
    return attrs.evolve(run, record=record)


def checkpoint_folder(folder: Path, phase: str) -> Path:
    """Return where a phase keeps its checkpoint.

    Args:
        folder: the run's folder.
        phase: the phase's name in the record.
    """
    return folder / CHECKPOINT / phase


def keep_checkpoint(run: Run, phase: str) -> None:
    """Write the checkpoint of a phase.

    Args:
        run: the run after the phase.
        phase: the phase's name in the record.
    """
    folder = checkpoint_folder(run.folder, phase)
    save_checkpoint(folder, run.model, run.attached, names=run.weights)


@attrs.frozen(kw_only=True, eq=False)
class Run:
    """A job under way.

    Attributes:
        job: what to do.
        calls: the user's callables.
        folder: where everything is written.
        display: where progress is shown.
        record: what is finished.
        built: the model, once it is built.
        teacher: the teacher, when the job has one.
        weights: names of the model's own parameters and buffers.
        observers: what receives the numbers of the run, once there is a session.
        example: what the model is run with where its recipe asks for its graph, or None.
        reviewed: the plan that alone may be carried out, or None.
        dense_bytes: what the model takes on disk before anything is done to it, if it can be
            written.
        resolved: the plan.
        session: the session, once attached.
        exported: what the exporters wrote.
        report: the report, once there is one.
    """

    job: Job
    calls: References
    folder: Path
    display: Display
    record: RunRecord
    observers: JobObservers
    built: nn.Module | None = None
    teacher: nn.Module | None = None
    weights: tuple[str, ...] = ()
    example: Any = None
    reviewed: Plan | None = None
    dense_bytes: int | None = None
    resolved: Plan | None = None
    session: Session | None = None
    exported: tuple[Exported, ...] = ()
    report: Report | None = None

    @property
    def model(self) -> nn.Module:
        """The model; phases that use it come after `build_model`."""
        if self.built is None:
            raise RuntimeError("the model is not built yet")
        return self.built

    @property
    def attached(self) -> Session:
        """The session; phases that use it come after `attach_plan` or `restore`."""
        if self.session is None:
            raise RuntimeError("no session is attached yet")
        return self.session


@attrs.frozen
class Phase:
    """One step of a job.

    Attributes:
        title: what is done, as a verb phrase.
        act: takes the run and returns it one step further.
        lasting: the name under which the record remembers it, or empty for a phase that every
            run repeats.
    """

    title: str
    act: Callable[[Run], Run]
    lasting: str = ""
