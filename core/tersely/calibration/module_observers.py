"""Observing modules in calibration: their inputs and outputs, for algorithms that ask for them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import attrs
import torch
from torch import Tensor

from tersely.calibration.experts import watch_experts
from tersely.calibration.hooks import SharedInputs, see_inputs, see_outputs, see_rows
from tersely.calibration.observing import UnreachedError, refuse_unreached
from tersely.contracts.abilities import ObservesInputs, ObservesOutputs
from tersely.contracts.quantizer import MergesObservations
from tersely.document.recipe import Unreached
from tersely.engine.observation.observers import Observers
from tersely.engine.observation.sums import merged_over_processes, over_processes
from tersely.engine.observation.watch import Watch
from tersely.engine.processes import gather
from tersely.engine.run import Run
from tersely.errors import CalibrationError


@attrs.frozen(eq=False)
class ModuleObservers(Observers):
    """What the algorithm of one stage observes of modules.

    Attributes:
        run: the stage.
        watches: what it observes.
    """

    run: Run[Any]
    watches: Sequence[Watch]

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to observe."""
        return not self.watches

    def listening(self) -> AbstractContextManager[None]:
        """Observe the modules inside the block."""
        return watch_modules(self.watches)

    def collect(self) -> None:
        """Bring together what all processes saw."""
        collect_watches(self.watches, unreached=self.run.stage.unreached)

    def keep(self) -> None:
        """Give the stage what was observed."""
        self.run.observed = {watch.bound: watch.sums for watch in self.watches}


def module_observers(runs: Sequence[Run[Any]]) -> list[Observers]:
    """Return observers of modules for those stages that are not calibrated block by block.

    Args:
        runs: the stages.
    """
    return [
        ModuleObservers(run, run.watches(run.bound_targets))
        for run in runs
        if run.is_observing_modules and not run.is_sequential
    ]


@contextlib.contextmanager
def watch_modules(watches: Sequence[Watch]) -> Iterator[None]:
    """Let algorithms see the inputs and outputs of modules inside the block.

    Linear layers that receive one and the same tensor (queries, keys and values) share what is
    observed of it: it is computed once and the sums are one object.

    Experts stacked in one parameter are observed one by one, see `watch_experts`.

    Args:
        watches: who observes what.
    """
    shared = SharedInputs()
    hooks = []
    experts = [watch for watch in watches if watch.bound.plan.has_experts]
    if experts:
        with (
            watch_experts(experts, see_rows),
            watch_modules([watch for watch in watches if not watch.bound.plan.has_experts]),
        ):
            yield
        return
    try:
        for watch in watches:
            module, algorithm = watch.bound.module, watch.algorithm
            if isinstance(algorithm, ObservesInputs):
                see = see_inputs(watch, algorithm, shared)
                hooks.append(module.register_forward_pre_hook(see, with_kwargs=True))
            if isinstance(algorithm, ObservesOutputs):
                hooks.append(module.register_forward_hook(see_outputs(watch, algorithm)))
        yield
    finally:
        for removable in hooks:
            removable.remove()


def collect_watches(watches: Sequence[Watch], *, unreached: Unreached) -> None:
    """Combine what all processes observed, so that all of them decide the same.

    A module that only some processes called, such as an expert that a router chose in one of them,
    counts with what those saw.

    Args:
        watches: who observed what, in the same order everywhere; their sums are written to.
        unreached: whether modules that no process saw are an error; their sums stay empty.

    Raises:
        UnreachedError: no process saw the modules of some targets; names all.
        CalibrationError: processes saw other shapes, or the sums are not finite; names the first
            such target. Both are raised in every process.
    """
    missing = []
    everyone = gather(_views(watches))
    for number, watch in enumerate(watches):
        views = [process[number] for process in everyone]
        if not any(view.parts for view in views):
            if not any(view.is_called for view in views):
                missing.append(_unreached(watch))
            continue
        _check_views(watch, views)
        if len(everyone) > 1:
            owners = {view.owner for view in views}
            if len(owners) == 1 and number not in owners:
                watch.sums = watches[owners.pop()].sums
            else:
                watch.sums = _over_processes(watch, views)
        for key, tensor in watch.sums.items():
            if not bool(tensor.sum().isfinite()):
                raise CalibrationError(
                    f"{watch.bound.plan.name}: what {watch.bound.plan.algorithm} observed "
                    f"({key}) is not finite; check the batches and the model's weights",
                    **watch.bound.plan.place,
                )
    if unreached == "error":
        refuse_unreached(missing)


def _unreached(watch: Watch) -> UnreachedError:
    plan = watch.bound.plan
    return UnreachedError(
        f"{plan.name}: its module was not called in calibration: no batch reached it, or something "
        "reads its weight without calling it; run it, or leave it out",
        unreached=[plan],
    )


@attrs.frozen
class _View:
    """What one process saw of one target: shapes and dtypes, and with which target it shares."""

    parts: Mapping[str, tuple[tuple[int, ...], torch.dtype]]
    owner: int
    is_called: bool


def _views(watches: Sequence[Watch]) -> list[_View]:
    owners: dict[int, int] = {}
    views = []
    for number, watch in enumerate(watches):
        parts = {key: (tuple(one.shape), one.dtype) for key, one in watch.sums.items()}
        owner = owners.setdefault(id(watch.sums), number)
        views.append(_View(parts, owner, watch.is_called))
    return views


def _check_views(watch: Watch, views: Sequence[_View]) -> None:
    name = watch.bound.plan.name
    seen = [view.parts for view in views if view.parts]
    if any(parts != seen[0] for parts in seen):
        shapes = [{key: list(shape) for key, (shape, _) in parts.items()} for parts in seen]
        raise CalibrationError(
            f"{name}: what {watch.bound.plan.algorithm} observed has another shape in each "
            f"process: {shapes}; calibrate with one shape",
            **watch.bound.plan.place,
        )


def _over_processes(watch: Watch, views: Sequence[_View]) -> dict[str, Tensor]:
    if isinstance(watch.algorithm, MergesObservations):
        has_experts = watch.bound.plan.has_experts
        return merged_over_processes(watch.sums, watch.algorithm, has_experts=has_experts)
    return over_processes(_filled(watch, views))


def _filled(watch: Watch, views: Sequence[_View]) -> dict[str, Tensor]:
    if watch.sums:
        return watch.sums
    parts = next(view.parts for view in views if view.parts)
    device = watch.bound.raw.device
    return {
        key: torch.zeros(shape, dtype=dtype, device=device) for key, (shape, dtype) in parts.items()
    }
