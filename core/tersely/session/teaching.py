"""Running the teacher, and caching what the student learns from."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any

from torch import Tensor, nn

from tersely.calibration.observing import evaluating
from tersely.contracts.calling import call_model
from tersely.distillation.engine import Distillation
from tersely.engine.observation.batches import Forward, to_device
from tersely.engine.targets.binding import first_device
from tersely.errors import SessionError
from tersely.storage.teacher_cache import fingerprint_of, write_cache


def need_teacher_to_run(teacher: nn.Module | None) -> nn.Module:
    """Return the teacher.

    Args:
        teacher: a session's teacher, or None.

    Raises:
        SessionError: there is none.
    """
    if teacher is None:
        raise SessionError(
            "the session has no teacher; give it to tersely.attach(..., teacher=...)"
        )
    return teacher


def run_teacher(teacher: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run a teacher under no_grad in eval mode, on its own device.

    Args:
        teacher: the teacher.
        args: its positional arguments.
        kwargs: its keyword arguments.
    """
    device = first_device(teacher)
    with evaluating(teacher):
        return teacher(*to_device(args, device), **to_device(kwargs, device))


def write_targets(
    distillation: Distillation,
    teacher: nn.Module,
    batches: Iterable[Any],
    directory: str | os.PathLike[str],
    *,
    forward: Forward | None,
) -> None:
    """Run a teacher over all batches once and write what its taps hold.

    Args:
        distillation: the session's distillation.
        teacher: the teacher.
        batches: the batches of an epoch.
        directory: the folder of the cache.
        forward: called as forward(teacher, batch), or None for `call_model`.
    """
    call = call_model if forward is None else forward
    device = first_device(teacher)

    def targets() -> Iterator[dict[str, Tensor]]:
        for batch in batches:
            with evaluating(teacher):
                call(teacher, to_device(batch, device))
            yield distillation.take_targets()

    fingerprint = fingerprint_of(distillation.pairs, teacher)
    write_cache(targets(), directory, fingerprint=fingerprint)
