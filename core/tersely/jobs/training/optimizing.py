"""The optimizer of the built-in loop, and how its learning rate falls."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from tersely.document.job import Job, Loop
from tersely.errors import ConfigError, Problem

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
}


def build_optimizer(loop: Loop, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
    """Return the optimizer that a loop names.

    Args:
        loop: names the optimizer, its options and the learning rate.
        parameters: what it moves.
    """
    # YAML knows lists only, and PyTorch asks for a pair.
    options = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in loop.optimizer_options.items()
    }
    return OPTIMIZERS[loop.optimizer](parameters, lr=loop.lr, **options)


def check_optimizer(job: Job) -> None:
    """Refuse options that PyTorch itself refuses, such as two that exclude each other.

    Args:
        job: a validated job.

    Raises:
        ConfigError: the optimizer cannot be made; the text says why.
    """
    if job.loop is None:
        return
    try:
        build_optimizer(job.loop, [torch.zeros(1, requires_grad=True)])
    except (RuntimeError, TypeError, ValueError) as error:
        message = f"PyTorch refuses these options of {job.loop.optimizer}: {error}"
        raise ConfigError([Problem("loop.optimizer", message)], source=job.source) from error


def set_learning_rate(optimizer: torch.optim.Optimizer, loop: Loop, progress: float) -> None:
    """Give an optimizer the learning rate of its next step.

    Args:
        optimizer: the loop's optimizer.
        loop: its learning rate and schedule.
        progress: the share of all steps that are done, from 0 to 1.
    """
    for group in optimizer.param_groups:
        group["lr"] = loop.lr * factor_at(loop.lr_schedule, progress)


def factor_at(schedule: str, progress: float) -> float:
    """Return the share of the learning rate that a schedule leaves.

    Args:
        schedule: ``constant``, ``linear`` or ``cosine``.
        progress: the share of all steps that are done, from 0 to 1.
    """
    if schedule == "linear":
        return 1 - progress
    if schedule == "cosine":
        return (1 + math.cos(math.pi * progress)) / 2
    return 1.0
