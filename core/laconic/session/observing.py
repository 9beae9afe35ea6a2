"""Calibration: what inputs and outputs look like, observed while the user's batches run."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import attrs
import torch
from torch import Tensor, nn

from laconic.errors import CalibrationError
from laconic.instrument.classes import instruments_of, replace_instruments
from laconic.planning.stage import descriptor_of
from laconic.registry.descriptors import Json
from laconic.session.handles import Handle
from laconic.session.wiring import with_site

Forward: TypeAlias = Callable[[nn.Module, Any], object]

_CHANNELS = ("per_channel", "output_channel")


@attrs.define(eq=False)
class Statistic:
    """Mean absolute value of an input or output; mutable because every batch adds to it.

    Attributes:
        name: the target's full name, for errors.
        channel_dim: the dimension to keep apart when only channels matter, else None.
        total: sum of absolute values over samples, without the batch; or over everything but
            channels, a vector.
        count: how many values went into each element of ``total``.
        sample_shape: the shape of the last sample seen, without the batch.
    """

    name: str
    channel_dim: int | None
    total: Tensor | None = None
    count: int = 0
    sample_shape: tuple[int, ...] = ()

    def __call__(self, module: nn.Module, value: Tensor) -> Tensor:
        """Add one batch and return it unchanged."""
        magnitude = value.detach().abs().float()
        if self.channel_dim is None:
            part, count = magnitude.sum(0), len(magnitude)
        else:
            dim = self.channel_dim % magnitude.ndim
            others = [index for index in range(magnitude.ndim) if index != dim]
            part = magnitude.sum(others) if others else magnitude
            count = magnitude.numel() // max(magnitude.shape[dim], 1)
        if self.total is None:
            self.total = part
        elif self.total.shape != part.shape:
            raise CalibrationError(
                f"{self.name} changes its shape between batches, from {list(self.total.shape)} to "
                f"{list(part.shape)} without the batch; calibrate with one shape, or write "
                f"granularity: per_channel, which needs the channels alone to be equal"
            )
        else:
            self.total += part
        self.count += count
        self.sample_shape = tuple(value.shape[1:])
        return value

    def mean(self) -> Tensor:
        """Return the mean absolute value, summed up over all processes.

        Raises:
            CalibrationError: no value was seen, or one that is not finite.
        """
        if self.total is None or self.count == 0:
            raise CalibrationError(
                f"{self.name} was not seen in calibration: no batch reached it, or something calls "
                f"its module's forward without calling the module; run it, or leave it out"
            )
        total, count = self.total, self.count
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            packed = torch.cat([total.flatten(), total.new_tensor([float(count)])])
            torch.distributed.all_reduce(packed)
            total, count = packed[:-1].view_as(total), int(packed[-1])
        mean = total / count
        if not bool(mean.isfinite().all()):
            raise CalibrationError(
                f"{self.name} had NaN or infinite values in calibration; check the batches and "
                f"the model's weights"
            )
        return mean


def statistic_for(handle: Handle, stage_granularity: Json) -> Statistic:
    """Return an empty statistic that suits a target's granularity.

    Args:
        handle: an input or output target.
        stage_granularity: what ``default`` means for the algorithm.
    """
    value = handle.plan.setting.get("granularity")
    if value in (None, "default"):
        value = stage_granularity
    by_channel = isinstance(value, str) and value in _CHANNELS
    return Statistic(handle.plan.name, handle.plan.channel_dim if by_channel else None)


def default_granularity(handle: Handle, stages: Sequence[Any]) -> Json:
    """Return what ``default`` means for the algorithm of a target's stage."""
    info = descriptor_of(stages[handle.plan.stage])
    return None if info is None else info.default_granularity


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
    modes = [(module, module.training) for module in model.modules()]
    count = 0
    try:
        model.eval()
        with torch.no_grad():
            for batch in batches:
                call(model, batch)
                count += 1
    finally:
        for module, mode in modes:
            module.training = mode
    return count


def call_model(model: nn.Module, batch: Any) -> object:
    """Call a model with a batch: a mapping as keywords, a list or tuple as arguments.

    Args:
        model: the model to call.
        batch: a tensor, a list or tuple, or a mapping.
    """
    if isinstance(batch, Mapping):
        return model(**batch)
    if isinstance(batch, (list, tuple)):
        return model(*batch)
    return model(batch)
