"""Shrinks a finished run: what its masks leave without effect is removed afterwards."""

from __future__ import annotations

import json
import os
import shutil
import warnings
from pathlib import Path

from tersely.errors import SessionError, SessionFileError
from tersely.jobs.calibrating import example_named
from tersely.jobs.finished import finished_job, open_run
from tersely.jobs.output.checkpoint import own_tensors
from tersely.jobs.output.folders import is_inside
from tersely.jobs.output.lock import only_run
from tersely.jobs.output.record import unreplaced
from tersely.jobs.references import job_imports
from tersely.session.finalizing.baking import FinalizeWarning
from tersely.session.session import Session
from tersely.shrinking.report import Shrunk
from tersely.storage.durable import sync_folder, write_whole
from tersely.storage.weights import WEIGHTS, write_weights

RECORD = "shrink.json"
"""What was removed, as JSON data; the file by which a folder is known as this command's."""


def shrink_run(
    folder: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    *,
    example: str | None = None,
    round_to: int = 1,
    approximate: bool = False,
) -> tuple[Shrunk, Path]:
    """Shrink the model of a finished run and write it for `tersely.load_shrunk`.

    Args:
        folder: the output folder of a finished ``tersely run``; it is not changed but for a
            default ``output``.
        output: where to write; by default ``shrunk`` in the folder.
        example: ``module:callable`` returning example inputs; by default the job's
            ``data.example``, else the first batch of its ``data.calibration``.
        round_to: row and column counts of weights that lose some stay multiples of this.
        approximate: whether to remove constants that no bias takes over exactly.

    Returns:
        What was removed, and where the small model is.

    Raises:
        SessionFileError: there is no finished run, a file of it is damaged, the output holds
            something else, or another process writes there.
        ConfigError: the job's model or example cannot be imported or built here.
        SessionError: nothing can be removed; the text says why.
    """
    run = Path(folder)
    place = run / "shrunk" if output is None else Path(output)
    _need_free(place)
    finished_job(run)  # before a lock is made next to a folder that is not a run
    with only_run(run.absolute() if is_inside(place, run) else place.absolute()):
        _need_free(place)  # again: another command may have written since
        with unreplaced(run):
            job, session = finished_job(run), open_run(run)
        with job_imports(job.directory):
            shrunk = session.shrink(
                example_named(job, reference=example), round_to=round_to, approximate=approximate
            )
        if not shrunk.rows:
            reasons = "".join(f"\n  {stay}" for stay in shrunk.stays)
            raise SessionError(
                f"nothing of the run in {run} can be removed:{reasons}", path=str(run)
            )
        _write(place, session, shrunk)
    return shrunk, place


def _need_free(place: Path) -> None:
    if place.exists() and not (place / RECORD).is_file():
        raise SessionFileError(
            f"{place} exists and holds no model that `tersely shrink` wrote; name another folder "
            "with --output",
            path=place,
        )


def _write(place: Path, session: Session, shrunk: Shrunk) -> None:
    partial = place.with_name(f"{place.name}.partial")
    if partial.exists():
        shutil.rmtree(partial)
    session.save(partial / "session")
    with warnings.catch_warnings():
        # The warning was shown when the run finalized the model.
        warnings.simplefilter("ignore", FinalizeWarning)
        model = session.finalize()
    try:
        write_weights(partial / WEIGHTS, own_tensors(model))
        write_whole(partial / RECORD, json.dumps(shrunk.to_dict(), indent=1) + "\n")
        if place.exists():
            shutil.rmtree(place)
        partial.rename(place)
        sync_folder(place.parent)
    except OSError as error:
        raise SessionFileError(
            f"{place}: the small model was not written: {error.strerror or error}", path=place
        ) from error
