"""Calibration: inputs and outputs observed while the user's batches run through the model."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import nn

from tersely.calibration.statistic import Statistic
from tersely.engine.batches import Forward, call_model
from tersely.engine.binding import Handle
from tersely.engine.instrumenting import with_site
from tersely.instrument.classes import instruments_of, replace_instruments


@contextlib.contextmanager
def observe(statistics: Mapping[Handle, Statistic]) -> Iterator[None]:
    """Let statistics see their targets inside the block, and take them off again.

    Args:
        statistics: what observes each target.
    """
    before = [(handle.module, instruments_of(handle.module)) for handle in statistics]
    for handle, statistic in statistics.items():
        current = instruments_of(handle.module)
        replace_instruments(
            handle.module, with_site(current, handle.module, handle.plan.target, statistic)
        )
    try:
        yield
    finally:
        for module, instruments in before:
            replace_instruments(module, instruments)


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model in eval mode under no_grad inside the block; each module's mode comes back.

    Args:
        model: the model.
    """
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode


def run_batches(model: nn.Module, batches: Iterable[Any], forward: Forward | None) -> int:
    """Run batches under no_grad in eval mode and restore each module's mode.

    Args:
        model: the model to run.
        batches: the calibration batches.
        forward: called as forward(model, batch), or None for `call_model`.

    Returns:
        How many batches there were.
    """
    call = call_model if forward is None else forward
    count = 0
    with evaluating(model):
        for batch in batches:
            call(model, batch)
            count += 1
    return count
