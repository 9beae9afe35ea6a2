"""Observing the values of quantized targets: in calibration, and over all processes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

import attrs
import torch
from torch import Tensor, nn

from tersely.contracts.quantizer import Observer
from tersely.engine.binding import Handle
from tersely.engine.precision import full_precision
from tersely.engine.processes import gather
from tersely.errors import CalibrationError
from tersely.instrument.classes import instruments_of, replace_instruments
from tersely.instrument.cutting import Cut
from tersely.instrument.names import QUANTIZE
from tersely.instrument.quantizing import need_float
from tersely.instrument.transforms import processed, put


@attrs.define(eq=False)
class Seen:
    """What calibration sees of one input or output; a transform, mutable because batches add to it.

    Attributes:
        handle: the target.
        cut: how its values are cut.
        observer: gathers the statistics.
        statistics: what is known so far; empty before the first value.
        count: how many calls were seen.
        shape: the shape of the values seen first.
        blocks: the block size they had.
    """

    place: ClassVar[int] = QUANTIZE

    handle: Handle
    cut: Cut
    observer: Observer
    statistics: dict[str, Tensor] = attrs.field(factory=dict)
    count: int = 0
    shape: tuple[int, ...] = ()
    blocks: tuple[int, ...] = ()

    def __call__(self, module: nn.Module, value: Tensor) -> Tensor:
        """Add one batch and return it unchanged."""
        name = self.handle.plan.name
        need_float(value, name)
        if value.numel() == 0:
            return value
        values = value.detach()
        size = self.cut.size_of(values)
        if values.dtype in (torch.float16, torch.bfloat16):
            values = values.float()
        with full_precision():
            part = self.observer.observe(*self.cut.view(values))
        if self.statistics:
            self._check_shapes(part)
            part = self.observer.merge(self.statistics, part)
        else:
            self.shape, self.blocks = tuple(value.shape), size
        self.statistics = dict(part)
        self.count += 1
        return value

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
                    f"{self.handle.plan.name} is cut into blocks of shape {list(tensor.shape)} "
                    f"after {list(before.shape)}; calibrate with one shape, or write granularity: "
                    f"default or per_channel"
                )


@contextlib.contextmanager
def observing(seen: Sequence[Seen], quantized: Sequence[nn.Module]) -> Iterator[None]:
    """Let targets be observed inside the block, with nothing quantized.

    Args:
        seen: what observes.
        quantized: every module that has a quantized target.
    """
    before = [(module, instruments_of(module)) for module in dict.fromkeys(quantized)]
    try:
        for module, instruments in before:
            targets = [
                *instruments.parameters,
                *(site.target for site in instruments.inputs),
                *(site.target for site in instruments.outputs),
            ]
            for target in targets:
                put(module, target, (), place=QUANTIZE)
        for one in seen:
            put(one.handle.module, one.handle.plan.target, (one,), place=QUANTIZE)
        yield
    finally:
        for module, instruments in before:
            replace_instruments(module, instruments)


def join(seen: Sequence[Seen], batches: int) -> None:
    """Join what all processes saw, so that all of them choose the same scales.

    Args:
        seen: what this process saw, in the same order everywhere; written to.
        batches: how many batches this process ran.

    Raises:
        CalibrationError: a process had no batch or did not see a target; raised in every process.
    """
    everyone = gather((batches, [(one.count, _portable(one)) for one in seen]))
    for process, (found, _) in enumerate(everyone):
        if found == 0:
            where = f" in process {process}" if len(everyone) > 1 else ""
            raise CalibrationError(f"calibrate() was given no batch{where}; pass at least one")
    for number, one in enumerate(seen):
        for process, (_, views) in enumerate(everyone):
            if views[number][0] == 0:
                where = f" in process {process}" if len(everyone) > 1 else ""
                raise CalibrationError(
                    f"{one.handle.plan.name} was not seen in calibration{where}: no batch reached "
                    f"it, or something calls its module's forward without calling the module; run "
                    f"it, or leave it out"
                )
        if len(everyone) > 1:
            device = next(iter(one.statistics.values())).device
            joined = one.observer.join([views[number][1] for _, views in everyone])
            one.statistics = {key: tensor.to(device) for key, tensor in joined.items()}


def _portable(seen: Seen) -> dict[str, Tensor]:
    return {key: tensor.cpu() for key, tensor in seen.statistics.items()}


def values_of(handle: Handle) -> Tensor:
    """Return a parameter as it will be deployed but for rounding: masked, folded and scaled.

    Args:
        handle: a parameter or buffer target.
    """
    with torch.no_grad():
        return processed(handle.module, handle.plan.target, handle.dense(), until=QUANTIZE)
