"""Passes of the user's batches, in which every active stage observes what it needs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from typing import Any

from torch import nn

from tersely.calibration.kept_batches import stages_that_look
from tersely.calibration.observing import UnreachedError, need_batch, refuse_unreached, run_batches
from tersely.engine.context import Context
from tersely.engine.finite import need_finite
from tersely.engine.observation.batches import Batches, Forward
from tersely.engine.observation.observers import Observers
from tersely.engine.observation.padding import PaddingMask
from tersely.engine.processes import failing_together
from tersely.engine.protocol import Engine


def calibrate(
    context: Context,
    engines: Sequence[Engine[Any]],
    batches: Iterable[Any],
    forward: Forward | None,
    *,
    mask: PaddingMask | None = None,
) -> None:
    """Run batches and let algorithms observe; after an error what was observed before is kept.

    The batches are kept where a stage will look at them again: to compress block by block, because
    future masks change what inputs and outputs are quantized, or where it begins
    later.

    Args:
        context: what the session's engines share; its batches are written.
        engines: the session's engines.
        batches: what to run; read once.
        forward: called as forward(model, batch), or None for the default.
        mask: how to find which positions of a batch are data.
    """
    # Reported first, or batches would be blamed for what such weights produce.
    need_finite(one for engine in engines for run in engine.begun for one in run.all_bound_targets)
    observers = [one for engine in engines for one in engine.observers(engine.begun)]
    kept = tuple(batches) if stages_that_look(engines, context.steps) else None
    if kept is not None and all(one.is_empty for one in observers):
        need_batch(len(kept))
    else:
        shown = batches if kept is None else kept
        observe(context.model, observers, shown, forward, mask=mask)
    context.has_kept_batches = kept is not None
    context.batches = None if kept is None else Batches(kept, forward, mask)


def observe(
    model: nn.Module,
    observers: Sequence[Observers],
    batches: Iterable[Any],
    forward: Forward | None,
    *,
    mask: PaddingMask | None = None,
) -> None:
    """Run batches once while engines observe; what was observed before stays after an error.

    Args:
        model: the session's model.
        observers: who observes what.
        batches: what to run; read once.
        forward: called as forward(model, batch), or None for the default.
        mask: how to find which positions of a batch are data.
    """
    with failing_together(model), ExitStack() as stack:
        for one in observers:
            stack.enter_context(one.listening())
        count = run_batches(model, batches, forward, mask=mask)
    need_batch(count)
    unreached = []
    for one in observers:
        try:
            one.collect()
        except UnreachedError as error:
            unreached.append(error)
    refuse_unreached(unreached)
    for one in observers:
        one.keep()


def observe_again(context: Context, observers: Sequence[Observers]) -> None:
    """Observe the kept batches once more, unless there are none or nothing to observe.

    Args:
        context: what the session's engines share.
        observers: who observes what.
    """
    kept = context.batches
    if kept is not None and not all(one.is_empty for one in observers):
        observe(context.model, observers, kept.batches, kept.forward, mask=kept.mask)
