"""Calibration: inputs and outputs observed while the user's batches run through the model."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from tersely.instrument.classes import instruments_of, replace_instruments
from tersely.session.handles import Handle
from tersely.session.statistic import Statistic
from tersely.session.wiring import with_site

Forward: TypeAlias = Callable[[nn.Module, Any], object]


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


def call_model(model: Callable[..., object], batch: Any) -> object:
    """Call a model with a batch: a mapping as keywords, a list or tuple as arguments.

    Args:
        model: the model to call, or what calls it.
        batch: a tensor, a list or tuple, or a mapping.
    """
    if isinstance(batch, Mapping):
        return model(**batch)
    if isinstance(batch, (list, tuple)):
        return model(*batch)
    return model(batch)


def first_sample(batch: Any) -> Any:
    """Return the first sample of a batch, or None where its tensors do not say what a sample is.

    Args:
        batch: a tensor, a list or tuple, or a mapping, as in `call_model`.
    """
    keys = list(batch) if isinstance(batch, Mapping) else None
    values = list(batch.values()) if isinstance(batch, Mapping) else _listed(batch)
    lengths = {value.shape[:1] for value in values if isinstance(value, Tensor)}
    others = [value for value in values if not isinstance(value, Tensor)]
    if len(lengths) != 1 or () in lengths or not all(isinstance(one, _PLAIN) for one in others):
        return None
    cut = [value[:1] if isinstance(value, Tensor) else value for value in values]
    return tuple(cut) if keys is None else dict(zip(keys, cut, strict=True))


def _listed(batch: Any) -> list[Any]:
    return list(batch) if isinstance(batch, (list, tuple)) else [batch]


_PLAIN = (bool, int, float, str, type(None))
"""Values of a batch that belong to all of its samples."""
