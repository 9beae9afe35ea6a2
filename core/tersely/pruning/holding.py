"""Stages with ``hold: step``: the session zeroes masked elements of the parameters themselves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from tersely.contracts.pruner import Learns
from tersely.contracts.regrowing import ObservesDenseGradients
from tersely.engine.state.journal import Journal
from tersely.engine.targets.binding import BoundTarget, whole
from tersely.errors import PlanError
from tersely.instrument.masks.holding import HeldWeight, zero
from tersely.instrument.masks.mask_transforms import ParameterMask
from tersely.instrument.modules.classes import is_sharded
from tersely.instrument.names import HELD, MASK, mask_buffer
from tersely.instrument.transforms import SharedPut
from tersely.pruning.mask_buffers import is_kept, mask_of
from tersely.pruning.run import OBSERVES_TRAINING, PruningRun


def check_hold(run: PruningRun) -> None:
    """Refuse ``hold: step`` where masks have to be applied on each read.

    Args:
        run: a stage.

    Raises:
        PlanError: the algorithm needs gradients through masks, or a mask is added.
    """
    stage = run.stage
    if stage.hold == "read":
        return
    is_dense = isinstance(run.algorithm, ObservesDenseGradients)
    if isinstance(run.algorithm, (Learns, *OBSERVES_TRAINING)) and not is_dense:
        raise PlanError(
            f"{stage.path}.hold: {stage.algorithm} needs the gradients that pass through masks, "
            "which exist only where masks are applied on read; found step, write read or leave "
            "hold out",
            path=stage.path,
            algorithm=stage.algorithm,
        )
    added = next((bound for bound in run.all_bound_targets if bound.is_additive), None)
    if added is not None:
        raise PlanError(
            f"{stage.path}.hold: with step, masked elements are zero in the parameter itself, and "
            f"{added.plan.name} has apply_method add; write mul, or read in place of step",
            **added.plan.place,
        )


def place_holds(runs: Iterable[PruningRun]) -> dict[BoundTarget, HeldWeight]:
    """Let the parameters of stages with ``hold: step`` be read as they are.

    Args:
        runs: all pruning stages of a session, whose modules are instrumented.

    Returns:
        What keeps the masked values of each such parameter and buffer.
    """
    found: dict[BoundTarget, HeldWeight] = {}
    shared = SharedPut(MASK)
    steps: dict[str, ParameterMask] = {}
    for run in runs:
        if run.stage.hold == "read":
            continue
        for bound in run.all_bound_targets:
            if bound.is_activation:
                continue
            held = found[bound] = HeldWeight()
            for module, attribute in bound.owners:
                buffer = mask_buffer(attribute)
                step = steps.setdefault(attribute, ParameterMask(buffer, is_held=True))
                module.__dict__.setdefault(HELD, {})[buffer] = held
                shared.put(module, attribute, step)
    return found


@torch.no_grad()
def hold(holds: Mapping[BoundTarget, HeldWeight]) -> None:
    """Zero the masked elements of parameters, in place.

    Parameters that are sharded are masked on each read all the same: no process has them whole.

    Args:
        holds: what keeps the masked values of each.
    """
    tensors: list[Tensor] = []
    masks: list[Tensor] = []
    for bound, held in holds.items():
        mask, raw = mask_of(bound), bound.raw
        if mask is None:
            continue
        if is_sharded(raw):
            _release(bound, held)
        else:
            held.keep(raw, mask)
            tensors.append(raw)
            masks.append(mask)
    zero(tensors, masks)


@torch.no_grad()
def release(holds: Mapping[BoundTarget, HeldWeight]) -> None:
    """Give the masked elements of parameters their dense values back, in place.

    Args:
        holds: what keeps the masked values of each.
    """
    for bound, held in reversed(list(holds.items())):
        _release(bound, held)


def _release(bound: BoundTarget, held: HeldWeight) -> None:
    raw = bound.raw
    if held.values is None:
        return
    if is_sharded(raw):
        values = whole(raw.detach()).clone()
        held.release(values)
        bound.write(values)
    else:
        held.release(raw)


def zero_what_comes_back(bound: BoundTarget, kept: Tensor, journal: Journal) -> None:
    """Zero the elements of a parameter that were masked so far and are kept from now on.

    Args:
        bound: a target whose previous mask is in force and whose values are dense.
        kept: its next mask, bool or 0 and 1, a shape that broadcasts to it.
        journal: notes the previous values.
    """
    mask = mask_of(bound)
    if mask is None or bound.is_activation:
        return
    back = (kept != 0) & ~is_kept(bound, mask)
    if bool(back.any()):
        bound.write(torch.where(back, 0, journal.note_values(bound)))
