"""The part of a session that runs the teacher, or reads what it said before."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any

from torch import Tensor, nn

from tersely.calibration.observing import evaluating
from tersely.distillation.engine import Distillation, to_device
from tersely.engine.batches import Forward, call_model
from tersely.engine.binding import first_device
from tersely.errors import SessionError
from tersely.session.order import State, need_attached
from tersely.storage.teacher_cache import TeacherCache, fingerprint_of, read_cache, write_cache


class Taught:
    """A teacher and its cache; inherited by sessions and nothing else."""

    teacher: nn.Module | None
    steps: int
    _state: State
    _distillation: Distillation
    _teacher_cache: TeacherCache | None

    @property
    def needs_teacher(self) -> bool:
        """Whether the loss of the next step compares with the teacher."""
        return self._distillation.is_running(self.steps)

    def teacher_forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the teacher under no_grad in eval mode.

        Args:
            *args: the teacher's positional arguments.
            **kwargs: the teacher's keyword arguments.

        Raises:
            SessionError: the session has no teacher.
        """
        need_attached(self._state, "teacher_forward")
        teacher = self._need_teacher()
        device = first_device(teacher)
        with evaluating(teacher):
            return teacher(*to_device(args, device), **to_device(kwargs, device))

    def cache_teacher(
        self,
        batches: Iterable[Any],
        directory: str | os.PathLike[str],
        *,
        forward: Forward | None = None,
    ) -> None:
        """Run the teacher over all batches once and write what the student learns from.

        Args:
            batches: the batches of an epoch, in the order of the training loop.
            directory: a folder; a cache that is there is replaced.
            forward: called as forward(teacher, batch); see `calibrate`.

        Raises:
            SessionError: the session has no teacher, or a target of it was not seen.
            SessionFileError: the folder cannot be written.
        """
        need_attached(self._state, "cache_teacher")
        teacher = self._need_teacher()
        call = call_model if forward is None else forward
        device = first_device(teacher)

        def targets() -> Iterator[dict[str, Tensor]]:
            for batch in batches:
                with evaluating(teacher):
                    call(teacher, to_device(batch, device))
                yield self._distillation.take_targets()

        pairs = self._distillation.pairs
        write_cache(targets(), directory, fingerprint=fingerprint_of(pairs, teacher))

    def use_teacher_cache(self, directory: str | os.PathLike[str]) -> TeacherCache:
        """Open a cache; `teacher_batch` then stands in for `teacher_forward`.

        Args:
            directory: the folder that `cache_teacher` wrote.

        Raises:
            SessionFileError: there is no cache, it is damaged, or it was made with another config
                or, where the session has a teacher, with another teacher.
        """
        need_attached(self._state, "use_teacher_cache")
        fingerprint = fingerprint_of(self._distillation.pairs, self.teacher)
        self._teacher_cache = read_cache(directory, fingerprint=fingerprint)
        return self._teacher_cache

    def teacher_batch(self, number: int) -> None:
        """Let the cached targets of one batch stand for the teacher's.

        Args:
            number: the batch's number in the epoch, from 0.

        Raises:
            SessionError: `use_teacher_cache` was not called.
            SessionFileError: there is no such batch, or its file is damaged.
        """
        need_attached(self._state, "teacher_batch")
        if self._teacher_cache is None:
            raise SessionError(
                "teacher_batch() has no cache to read; call session.use_teacher_cache(path) first"
            )
        self._distillation.put_targets(self._teacher_cache.targets(number))

    def _need_teacher(self) -> nn.Module:
        if self.teacher is None:
            raise SessionError(
                "the session has no teacher; give it to tersely.attach(..., teacher=...)"
            )
        return self.teacher
