"""A finished run read back: its job, and the model it ended with."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

from torch import nn

from tersely.document.job import Job
from tersely.document.load import job_from_data
from tersely.errors import ConfigError, Problem, SessionFileError
from tersely.jobs.output.checkpoint import load_checkpoint
from tersely.jobs.output.record import RunRecord, read_record, unreplaced
from tersely.jobs.references import job_imports, load_reference
from tersely.session.finalizing.baking import FinalizeWarning
from tersely.session.session import Session


def load_run(folder: str | os.PathLike[str], model: nn.Module | None = None) -> nn.Module:
    """Give the finished model of a run back, ready to evaluate or deploy.

    Of the folder only data is read: tensors and JSON, no pickled objects.

    Args:
        folder: the output folder of a finished ``tersely run``.
        model: the model as it was before the run, of any weights; changed in place. Without it,
            the job's own ``model`` is imported and called with its ``model_args``, which runs
            code that the folder names: give a model where you do not trust the folder.

    Returns:
        The model in evaluation mode, as the run finalized it: its outputs equal those of
        the run bit for bit. Inputs and outputs that were quantized stay so.

    Raises:
        SessionFileError: there is no finished run, a file of it is damaged, or the model is
            another one.
        ConfigError: the job's model cannot be imported or built here.
    """
    session = open_run(folder, model)
    with warnings.catch_warnings():
        # The warning was shown when the run finalized the model.
        warnings.simplefilter("ignore", FinalizeWarning)
        return session.finalize().eval()


def open_run(folder: str | os.PathLike[str], model: nn.Module | None = None) -> Session:
    """Continue the session of a finished run, with the weights it was saved with.

    Args:
        folder: the output folder of a finished ``tersely run``.
        model: the model as it was before the run, or None for the job's own.

    Returns:
        The session, in force on the model; it has no teacher.

    Raises:
        SessionFileError: as for `load_run`.
        ConfigError: as for `load_run`.
    """
    place = Path(folder)
    with unreplaced(place):
        record = _finished(place)
        if model is None:
            model = build_model(job_of(place, record))
        return load_checkpoint(place / "session", model, teacher=None)


def finished_job(folder: str | os.PathLike[str]) -> Job:
    """Return the job of a finished run as it was when it ran.

    Args:
        folder: the output folder of a finished ``tersely run``.

    Raises:
        SessionFileError: there is no finished run, or its record is damaged.
        ConfigError: what the job needs is not installed any more.
    """
    place = Path(folder)
    return job_of(place, _finished(place))


def job_of(folder: Path, record: RunRecord) -> Job:
    """Return the job that a record keeps.

    Args:
        folder: the folder of the run.
        record: its record.

    Raises:
        ConfigError: what the job needs is not installed any more.
    """
    return job_from_data(record.job, (folder / record.directory).resolve())


def build_model(job: Job) -> nn.Module:
    """Import and call what a job names as its model.

    Args:
        job: a validated job.

    Raises:
        ConfigError: it cannot be imported, or returned something else than a module.
    """
    with job_imports(job.directory):
        build = load_reference(job.model, path="model", folder=job.directory)
        model = build(**job.model_args)
    if not isinstance(model, nn.Module):
        found = f"returned a {type(model).__name__}, expected a torch.nn.Module"
        raise ConfigError([Problem("model", found)], source=job.source)
    return model


def _finished(folder: Path) -> RunRecord:
    record = read_record(folder)
    if record is None or record.state != "finished":
        found = "holds a run that is not finished" if record else "holds no run"
        raise SessionFileError(
            f"{folder} {found}; give the output folder of a finished `tersely run`", path=folder
        )
    return record
