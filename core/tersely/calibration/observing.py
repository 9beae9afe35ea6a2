"""Calibration: inputs and outputs observed while the user's batches run through the model."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from tersely.contracts.target_plan import TargetPlan
from tersely.engine.observation.batches import Forward, run_batch
from tersely.engine.observation.padding import PaddingMask
from tersely.engine.processes import gather
from tersely.engine.targets.binding import BoundTarget
from tersely.engine.targets.instrumenting import with_site
from tersely.errors import CalibrationError
from tersely.instrument.instruments import Transform
from tersely.instrument.modules.classes import instruments_of, replace_instruments


@contextlib.contextmanager
def observe_targets(observing: Mapping[BoundTarget, Transform]) -> Iterator[None]:
    """Let transforms see inputs and outputs inside the block, and take them off again.

    Args:
        observing: what observes each target, as the last step on it.
    """
    before = [(bound.module, instruments_of(bound.module)) for bound in observing]
    for bound, transform in observing.items():
        current = instruments_of(bound.module)
        replace_instruments(
            bound.module, with_site(current, bound.module, bound.plan.target, transform)
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


def run_batches(
    model: nn.Module,
    batches: Iterable[Any],
    forward: Forward | None,
    *,
    mask: PaddingMask | None = None,
) -> int:
    """Run batches under no_grad in eval mode and restore each module's mode.

    Args:
        model: the model to run.
        batches: the calibration batches.
        forward: called as forward(model, batch), or None for `call_model`.
        mask: how to find which positions of a batch are data.

    Returns:
        How many batches there were.
    """
    count = 0
    with evaluating(model):
        for batch in batches:
            run_batch(model, batch, forward=forward, mask=mask)
            count += 1
    return count


def need_batch(batches: int) -> None:
    """Refuse calibration without a batch.

    Args:
        batches: how many batches this process ran.

    Raises:
        CalibrationError: a process had none; raised in every process.
    """
    everyone = gather(batches)
    for process, count in enumerate(everyone):
        if count == 0:
            where = _where(process, everyone)
            raise CalibrationError(f"calibrate() was given no batch{where}; pass at least one")


class UnreachedError(CalibrationError):
    """Targets that calibration did not reach, which one error names together.

    Attributes:
        unreached: the targets, the first of which the error carries.
    """

    def __init__(self, message: str, *, unreached: Sequence[TargetPlan]) -> None:
        super().__init__(message, **unreached[0].place)
        self.unreached = tuple(unreached)


def refuse_unreached(errors: Sequence[UnreachedError]) -> None:
    """Raise one error for all targets that calibration did not reach.

    Args:
        errors: an error for each of them, or for some together.

    Raises:
        UnreachedError: there is one.
    """
    if len(errors) == 1:
        raise errors[0]
    unreached = {plan.name: plan for error in errors for plan in error.unreached}
    if unreached:
        raise UnreachedError(
            f"{len(unreached)} targets were not reached in calibration: {', '.join(unreached)}; "
            "no batch reached their modules, or something reads weights or calls forward without "
            "calling the modules; run them, leave them out, or write unreached in their stage",
            unreached=list(unreached.values()),
        )


def need_seen(plan: TargetPlan, counts: Sequence[int]) -> None:
    """Refuse an input or output that no batch reached.

    Args:
        plan: the target.
        counts: how often each process saw it.

    Raises:
        UnreachedError: a process did not see it.
    """
    for process, count in enumerate(counts):
        if count == 0:
            raise UnreachedError(
                f"{plan.name} was not seen in calibration{_where(process, counts)}: no batch "
                "reached it, or something calls its module's forward without calling the module; "
                "run it, or leave it out",
                unreached=[plan],
            )


def need_one_shape(plan: TargetPlan, shapes: Sequence[tuple[int, ...]]) -> None:
    """Refuse an input or output whose shape differs between processes.

    Args:
        plan: the target.
        shapes: its shape in each process, without the batch.

    Raises:
        CalibrationError: the shapes differ.
    """
    if any(shape != shapes[0] for shape in shapes):
        raise CalibrationError(
            f"{plan.name} has another shape in each process: {[list(shape) for shape in shapes]} "
            "without the batch; calibrate with one shape",
            **plan.place,
        )


def _where(process: int, everyone: Sequence[object]) -> str:
    return f" in process {process}" if len(everyone) > 1 else ""
