"""TensorBoard: the curves of a session in files for ``tensorboard --logdir``."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

import tersely


class TensorBoard:
    """Writes the numbers that a session reports to its observers, one scalar curve for each name.

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
            folder: where the files are written. TensorBoard no longer shows older curves in it.
            resumed_at: the step of the saved session from which training continues; older curves up
                to it stay visible.
            job: the content of the text ``job`` of a new training.
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
        """Write the remaining numbers.

        Args:
            failed: not used.
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
        resumed_at: the step from which an interrupted run continues, or None for a new run.
        job: the job's document, shown as a text.
        folder: where the files are written, relative to the parent of ``output``;
            ``<output>.curves`` by default, since the output folder itself only appears at the end.
    """
    place = output.with_name(f"{output.name}.curves") if folder is None else output.parent / folder
    return TensorBoard(place, resumed_at=resumed_at, job=job)


def _indented(job: Mapping[str, object]) -> str:
    """Return a document as a Markdown code block, with each line indented by four spaces."""
    text = json.dumps(job, indent=2, ensure_ascii=False, default=str)
    return "\n".join(f"    {line}" for line in text.splitlines())
