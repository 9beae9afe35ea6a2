"""The statistic of one input or output in calibration, and how processes combine theirs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import ClassVar

import attrs
import torch
from torch import Tensor, distributed, nn

from tersely.calibration.observing import (
    UnreachedError,
    need_one_shape,
    need_seen,
    observe_targets,
    refuse_unreached,
)
from tersely.contracts.target_plan import TargetPlan
from tersely.document.recipe import Stage
from tersely.engine.observation.observers import Observers
from tersely.engine.observation.padding import data_of, kept_positions
from tersely.engine.processes import gather
from tersely.engine.targets.binding import BoundTarget
from tersely.errors import CalibrationError
from tersely.instrument.masks.mask_transforms import spatial_dims
from tersely.instrument.names import MASK
from tersely.planning.stages.descriptors import descriptor_of
from tersely.planning.targets.granularity import meant


@attrs.define(eq=False)
class Statistic:
    """Mean absolute value of an input or output; mutable because every batch adds to it.

    Attributes:
        plan: the target, for errors.
        channel_dim: the dimension to keep apart when only channels matter, else None.
        spatial: how many dimensions follow the channels, or None when any may.
        total: sum of absolute values over samples, without the batch; or over everything but
            channels, a vector.
        count: how many values went into each element of ``total``.
        missing: how many of them were padding, in the shape of ``total``; None where none was.
        sample_shape: the shape of the last sample seen, without the batch.
    """

    place: ClassVar[int] = MASK

    plan: TargetPlan
    channel_dim: int | None
    spatial: int | None = None
    total: Tensor | None = None
    count: int = 0
    missing: Tensor | None = None
    sample_shape: tuple[int, ...] = ()

    def __call__(self, module: nn.Module, value: Tensor) -> Tensor:
        """Add one batch and return it unchanged."""
        batch = value.detach()
        if self.spatial is not None and batch.ndim == self.spatial + 1:
            batch = batch.unsqueeze(0)
        if self.channel_dim is None:
            self._add_samples(batch)
        else:
            for part in data_of(batch, is_channels_first=self.channel_dim == 1):
                self._add_channels(part, self.channel_dim % part.ndim)
        self.sample_shape = tuple(batch.shape[1:])
        return value

    def _add_samples(self, batch: Tensor) -> None:
        magnitude = _magnitude(batch)
        kept = kept_positions(batch, is_channels_first=self.spatial is not None)
        if kept is not None:
            magnitude = torch.where(kept, magnitude, 0)
        part = magnitude.sum(0)
        self._add(part, len(magnitude))
        if kept is not None:
            missing = (len(kept) - kept.sum(0)).expand(part.shape)
            self.missing = missing.clone() if self.missing is None else self.missing + missing

    def _add_channels(self, batch: Tensor, dim: int) -> None:
        others = [index for index in range(batch.ndim) if index != dim]
        magnitude = _magnitude(batch)
        part = magnitude.sum(others) if others else magnitude
        self._add(part, magnitude.numel() // max(magnitude.shape[dim], 1))

    def _add(self, part: Tensor, count: int) -> None:
        if self.total is None:
            self.total = part
        elif self.total.shape != part.shape:
            raise CalibrationError(
                f"{self.plan.name} changes its shape between batches, from "
                f"{list(self.total.shape)} to {list(part.shape)} without the batch; calibrate "
                "with one shape, or write granularity: per_channel, which needs the channels alone "
                "to be equal",
                **self.plan.place,
            )
        else:
            self.total = self.total + part
        self.count += count

    def seen(self) -> tuple[int, tuple[int, ...]]:
        """Return how many values each element has seen, and the shape of ``total``."""
        return self.count, () if self.total is None else tuple(self.total.shape)

    def mean(self) -> Tensor:
        """Return the mean absolute value.

        Raises:
            CalibrationError: no value was seen.
        """
        need_seen(self.plan, [0 if self.total is None else self.count])
        assert self.total is not None  # it was seen
        if self.missing is None:
            return self.total / self.count
        return self.total / (self.count - self.missing).clamp_min(1)


def _magnitude(values: Tensor) -> Tensor:
    return values.abs().to(torch.promote_types(values.dtype, torch.float32))


def statistic_for(bound: BoundTarget, stages: Sequence[Stage]) -> Statistic:
    """Return an empty statistic that suits a target's granularity.

    Args:
        bound: an input or output target.
        stages: the recipe's stages.
    """
    info = descriptor_of(stages[bound.plan.stage])
    by_channel = info is not None and meant(bound.plan.pruning.granularity, info).is_by_channel
    spatial = spatial_dims(bound.plan.module_type) if bound.plan.channel_dim == 1 else None
    return Statistic(bound.plan, bound.plan.channel_dim if by_channel else None, spatial)


@attrs.frozen(eq=False)
class StatisticObservers(Observers):
    """What some stages observe of inputs and outputs.

    Attributes:
        statistics: the statistics that a pass fills.
        kept: where they go afterwards; written to.
    """

    statistics: Mapping[BoundTarget, Statistic]
    kept: dict[BoundTarget, Statistic]

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to observe."""
        return not self.statistics

    def listening(self) -> AbstractContextManager[None]:
        """Observe the inputs and outputs inside the block."""
        return observe_targets(self.statistics)

    def collect(self) -> None:
        """Combine what all processes observed, so that all of them decide the same."""
        everyone = gather([one.seen() for one in self.statistics.values()])
        missing = []
        for number, statistic in enumerate(self.statistics.values()):
            views = [seen[number] for seen in everyone]
            try:
                need_seen(statistic.plan, [count for count, _ in views])
            except UnreachedError as error:
                missing.append(error)
                continue
            need_one_shape(statistic.plan, [shape for _, shape in views])
            if len(everyone) > 1:
                statistic.count = sum(count for count, _ in views)
                distributed.all_reduce(statistic.total)
                assert statistic.total is not None  # every process has seen it
                if statistic.missing is None:
                    statistic.missing = torch.zeros_like(statistic.total, dtype=torch.long)
                distributed.all_reduce(statistic.missing)
            if statistic.total is not None and not bool(statistic.total.isfinite().all()):
                raise CalibrationError(
                    f"{statistic.plan.name} had NaN or infinite values in calibration; check the "
                    "batches and the model's weights",
                    **statistic.plan.place,
                )
        refuse_unreached(missing)

    def keep(self) -> None:
        """Give the engine what was observed."""
        self.kept.update(self.statistics)


def sample_shape(
    statistics: Mapping[BoundTarget, Statistic], bound: BoundTarget
) -> tuple[int, ...] | None:
    """Return the shape of one sample of an input or output, or None while unknown.

    Args:
        statistics: what calibration saw.
        bound: the target.
    """
    found = statistics.get(bound)
    return None if found is None else found.sample_shape
