"""Compressing block by block: observe a block, compress it, and feed its output to the next."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from torch import nn

from tersely.calibration.chains import Call, Chain, enter_modules, find_blocks, find_chain
from tersely.calibration.module_observers import collect_watches, watch_modules
from tersely.calibration.observing import evaluating
from tersely.contracts.abilities import ObservesOutputs
from tersely.contracts.settings import PruningSetting
from tersely.engine.observation.batches import Batches
from tersely.engine.processes import failing_together, gather
from tersely.engine.progress import with_progress
from tersely.engine.run import Run
from tersely.engine.targets.binding import BoundTarget
from tersely.errors import SessionError
from tersely.instrument.modules.classes import is_sharded


def compress_in_sequence(
    run: Run[Any],
    model: nn.Module,
    batches: Batches,
    *,
    compress: Callable[[Sequence[BoundTarget]], None],
) -> None:
    """Let an algorithm observe and compress one block after the other.

    Targets outside the row of blocks come last and see the compressed blocks. A model without
    such a row, or a budget that is shared across blocks, is observed whole, at once.

    Args:
        run: the stage.
        model: the session's model.
        batches: the calibration batches.
        compress: decides on targets and puts masks and values in force.

    Raises:
        CalibrationError: a target's module was not called.
        SessionError: parameters are sharded.
    """
    waiting = list(run.bound_targets)
    _need_whole_parameters(waiting)
    with evaluating(model):
        blocks = () if _is_grouped(waiting) else find_blocks(model, _modules(waiting))
        with failing_together(model):
            chain = find_chain(model, blocks, batches) if blocks else None
        if not all(gather(chain is not None)):
            chain = None  # all processes go the same way, since they observe together
        if chain is not None:
            waiting = _follow(run, chain, blocks, waiting, compress)
        if waiting:
            _observe(run, waiting, lambda: batches.run(model), model=model)
            compress(waiting)
            run.forget(waiting)


def _need_whole_parameters(bound_targets: Sequence[BoundTarget]) -> None:
    # A block ends its pass early or runs without the model around it, and FSDP2 follows neither.
    sharded = next((one.plan for one in bound_targets if is_sharded(one.raw)), None)
    if sharded is not None:
        raise SessionError(
            f"{sharded.name} is sharded, and {sharded.algorithm} works block by block, which "
            "fully_shard() does not allow; compress before fully_shard(), or give the algorithm "
            "the option sequential: false",
            **sharded.place,
        )


def _observe(
    run: Run[Any],
    bound_targets: Sequence[BoundTarget],
    feed: Callable[[], None],
    *,
    model: nn.Module,
) -> None:
    watches = run.watches(bound_targets)
    with failing_together(model), watch_modules(watches):
        feed()
    collect_watches(watches, unreached=run.stage.unreached)
    for watch in watches:
        run.observed[watch.bound] = watch.sums


def _follow(
    run: Run[Any],
    chain: Chain,
    blocks: Sequence[nn.Module],
    bound_targets: Sequence[BoundTarget],
    compress: Callable[[Sequence[BoundTarget]], None],
) -> list[BoundTarget]:
    """Compress the targets in a chain of blocks and return the rest."""
    waiting = list(bound_targets)
    calls = chain.calls
    for block in with_progress(blocks, "blocks compressed"):
        inner = set(block.modules())
        members = [bound for bound in waiting if bound.module in inner]
        waiting = [bound for bound in waiting if bound.module not in inner]
        if members:
            feed = partial(_run_calls, run, chain, block, calls, members)
            _observe(run, members, feed, model=block)
            compress(members)
            run.forget(members)
        if block is not blocks[-1]:
            with failing_together(block):
                calls = tuple(call.next_call(call.run(block)) for call in calls)
    return waiting


def _run_calls(
    run: Run[Any],
    chain: Chain,
    block: nn.Module,
    calls: Sequence[Call],
    members: Sequence[BoundTarget],
) -> None:
    modules = _modules(members)
    is_run_whole = isinstance(run.algorithm, ObservesOutputs) or any(
        bound.plan.has_experts for bound in members
    )
    if is_run_whole or not modules <= chain.once:
        for call in calls:
            call.run(block)
    else:
        enter_modules(block, calls, modules)


def _is_grouped(bound_targets: Sequence[BoundTarget]) -> bool:
    return any(
        isinstance(bound.plan.setting, PruningSetting) and bound.plan.setting.is_grouped
        for bound in bound_targets
    )


def _modules(bound_targets: Sequence[BoundTarget]) -> set[nn.Module]:
    return {bound.module for bound in bound_targets}
