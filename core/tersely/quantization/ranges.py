"""Observing the values of quantized targets: in calibration, and over all processes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import ClassVar

import attrs
import torch
from torch import Tensor, nn

from tersely.calibration.observing import UnreachedError, need_seen, refuse_unreached
from tersely.contracts.quantizer import Observer
from tersely.engine.isolation.precision import full_precision
from tersely.engine.observation.observers import Observers
from tersely.engine.observation.padding import data_of, is_channels_first
from tersely.engine.processes import gather
from tersely.engine.targets.binding import BoundTarget
from tersely.errors import CalibrationError
from tersely.instrument.modules.classes import instruments_of, replace_instruments
from tersely.instrument.names import QUANTIZE
from tersely.instrument.scales.block_cuts import BlockCut
from tersely.instrument.scales.quantizing import need_float
from tersely.instrument.transforms import processed, put
from tersely.json_value import Json


@attrs.define(eq=False)
class Seen:
    """What calibration sees of one input or output; a transform, mutable because batches add to it.

    Attributes:
        bound: the target.
        cut: how its values are cut.
        observer: gathers the statistics.
        statistics: what is known so far; empty before the first value.
        count: how many calls were seen.
        shape: the shape of the values seen first.
        blocks: the block size they had.
        is_required: whether it is an error when no batch reaches it.
    """

    place: ClassVar[int] = QUANTIZE

    bound: BoundTarget
    cut: BlockCut
    observer: Observer
    statistics: dict[str, Tensor] = attrs.field(factory=dict)
    count: int = 0
    shape: tuple[int, ...] = ()
    blocks: tuple[int, ...] = ()
    is_required: bool = attrs.field(default=True, kw_only=True)

    def __call__(self, module: nn.Module, value: Tensor) -> Tensor:
        """Add one batch and return it unchanged."""
        name = self.bound.plan.name
        need_float(value, name)
        if value.numel() == 0:
            return value
        layout = is_channels_first(self.bound.plan.channel_dim, module)
        for part in data_of(value.detach(), is_channels_first=layout):
            self._add(part)
        return value

    def _add(self, values: Tensor) -> None:
        size = self.cut.size_of(values)
        if values.dtype in (torch.float16, torch.bfloat16):
            values = values.float()
        with full_precision():
            part = self.observer.observe(*self.cut.view(values))
        if self.statistics:
            self._check_shapes(part)
            part = self.observer.merge(self.statistics, part)
        else:
            self.shape, self.blocks = tuple(values.shape), size
        self.statistics = dict(part)
        self.count += 1

    def kept(self, block: Tensor) -> Tensor:
        """Return one value per block in the shape that is kept.

        Args:
            block: one value per block as the observer has it.
        """
        return self.cut.canonical(torch.empty(self.shape, device="meta"), block)

    def _check_shapes(self, part: Mapping[str, Tensor]) -> None:
        for key, tensor in part.items():
            before = self.statistics[key]
            if before.shape != tensor.shape:
                raise CalibrationError(
                    f"{self.bound.plan.name} is cut into blocks of shape {list(tensor.shape)} "
                    f"after {list(before.shape)}; calibrate with one shape, or write granularity: "
                    "default or per_channel",
                    **self.bound.plan.place,
                )


@attrs.frozen(eq=False)
class RangeObservers(Observers):
    """What some stages see of inputs and outputs, while nothing is quantized.

    Attributes:
        seen: what observes.
        modules: every module that has a quantized target.
        kept: where what was seen goes afterwards; written to.
    """

    seen: Sequence[Seen]
    modules: Sequence[nn.Module]
    kept: dict[BoundTarget, Seen]

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to observe."""
        return not self.seen

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Observe inputs and outputs inside the block, with nothing quantized."""
        before = [(module, instruments_of(module)) for module in dict.fromkeys(self.modules)]
        try:
            for module, instruments in before:
                targets = [
                    *instruments.parameters,
                    *(site.target for site in instruments.inputs),
                    *(site.target for site in instruments.outputs),
                ]
                for target in targets:
                    put(module, target, (), place=QUANTIZE)
            for one in self.seen:
                put(one.bound.module, one.bound.plan.target, (one,), place=QUANTIZE)
            yield
        finally:
            for module, instruments in before:
                replace_instruments(module, instruments)

    def collect(self) -> None:
        """Combine what all processes saw, so that all of them choose the same scales."""
        everyone = gather([(one.count, _portable(one)) for one in self.seen])
        missing = []
        for number, one in enumerate(self.seen):
            views = [process[number] for process in everyone]
            try:
                need_seen(one.bound.plan, [count for count, _ in views])
            except UnreachedError as error:
                if one.is_required:
                    missing.append(error)
                one.statistics = {}
                continue
            if len(everyone) > 1:
                device = next(iter(one.statistics.values())).device
                joined = one.observer.join([statistics for _, statistics in views])
                one.statistics = {key: tensor.to(device) for key, tensor in joined.items()}
        refuse_unreached(missing)

    def keep(self) -> None:
        """Give the engine what was seen."""
        for one in self.seen:
            if one.statistics:
                self.kept[one.bound] = one
            else:
                self.kept.pop(one.bound, None)


def _portable(seen: Seen) -> dict[str, Tensor]:
    return {key: tensor.cpu() for key, tensor in seen.statistics.items()}


def describe_seen(seen: Seen) -> dict[str, Json]:
    """Return what a saved session keeps of an observer besides its statistics.

    Args:
        seen: what calibration saw of an input or output.
    """
    return {"count": seen.count, "shape": list(seen.shape), "blocks": list(seen.blocks)}


def rebuilt_seen(fresh: Seen, statistics: Mapping[str, Tensor], about: Mapping[str, Json]) -> Seen:
    """Return what calibration saw as it was saved.

    Args:
        fresh: an observer of the target; changed and returned.
        statistics: what it had gathered.
        about: what `describe_seen` returned.
    """
    fresh.statistics = dict(statistics)
    fresh.count = int(about["count"])
    fresh.shape, fresh.blocks = tuple(about["shape"]), tuple(about["blocks"])
    return fresh


def values_of(bound: BoundTarget) -> Tensor:
    """Return a parameter as it will be deployed, except for rounding: masked, folded and scaled.

    Args:
        bound: a parameter or buffer target.
    """
    return all_values_of([bound])[0]


def all_values_of(bound_targets: Iterable[BoundTarget]) -> list[Tensor]:
    """Return parameters as they will be deployed, except for rounding.

    Args:
        bound_targets: parameter or buffer targets.
    """
    with torch.no_grad():
        return [
            processed(bound.module, bound.plan.target, bound.dense(), until=QUANTIZE)
            for bound in bound_targets
        ]
