"""TensorBoard: the curves of a session as files that ``tensorboard --logdir`` shows."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

import tersely


class TensorBoard:
    """Writes what a session tells its observers, each name as one scalar curve.

    Give it to `tersely.Session.add_observer`, and close it at the end.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        resumed_at: int | None = None,
        job: Mapping[str, object] | None = None,
    ) -> None:
        """Write into a folder; nothing is written before the first number.

        Args:
            folder: where the files go. TensorBoard no longer shows the curves that are there.
            resumed_at: the step of the saved session with which training goes on: the curves up to
                it stay visible.
            job: what is shown as the text ``job`` of a new training.
        """
        self._folder = Path(folder)
        self._first = 0 if resumed_at is None else resumed_at + 1
        self._job = job if resumed_at is None else None
        self._writer: SummaryWriter | None = None

    def observe(self, observation: tersely.Observation) -> None:
        """Write the numbers of a step.

        Args:
            observation: the numbers.
        """
        if self._writer is None:
            self._writer = SummaryWriter(os.fspath(self._folder), purge_step=self._first)
            if self._job:
                self._writer.add_text("job", _indented(self._job), self._first)
        for name, value in observation.values.items():
            self._writer.add_scalar(name, value, observation.step)
        if observation.epoch is not None:
            self._writer.add_scalar("epoch", observation.epoch, observation.step)

    def close(self, *, failed: bool = False) -> None:
        """Write what is not written yet.

        Args:
            failed: not used; files know no failure.
        """
        if self._writer is not None:
            self._writer.close()


def writer(
    *,
    output: Path,
    resumed_at: int | None,
    job: Mapping[str, object] | None = None,
    folder: str | None = None,
) -> TensorBoard:
    """Return the writer of a job: ``create: tersely_integrations.tensorboard:writer``.

    Args:
        output: the job's output folder.
        resumed_at: the step from which an interrupted run goes on, or None for a new run.
        job: the job's document, shown as a text.
        folder: where the files go, seen from the folder that ``output`` is in; ``<output>.curves``
            by default, since the output folder itself appears only at the end.
    """
    place = output.with_name(f"{output.name}.curves") if folder is None else output.parent / folder
    return TensorBoard(place, resumed_at=resumed_at, job=job)


def _indented(job: Mapping[str, object]) -> str:
    """Return a document as Markdown that shows it as it is: each line four spaces in."""
    text = json.dumps(job, indent=2, ensure_ascii=False, default=str)
    return "\n".join(f"    {line}" for line in text.splitlines())
