"""Putting masks in force: noted before they change, and written in place where that is possible."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from tersely.engine.state.journal import Journal
from tersely.engine.targets.binding import BoundTarget
from tersely.engine.targets.buffers import is_replaced_by, put_buffer
from tersely.instrument.names import mask_buffer
from tersely.pruning.mask_buffers import activation_dtype


def note_masks(bound_targets: Iterable[BoundTarget], journal: Journal) -> None:
    """Note the masks of targets, which are about to change.

    Args:
        bound_targets: the targets.
        journal: takes the notes.
    """
    binary: list[tuple[nn.Module, str]] = []
    for bound in bound_targets:
        if bound.is_additive:
            for module, name in bound.masks():
                journal.note_buffer(module, name)
        else:
            binary += bound.masks()
    journal.note_masks(binary)


def write_masks(masks: Mapping[BoundTarget, Tensor], model: nn.Module) -> None:
    """Put masks in force, in place where one of the same shape is, and these in one call.

    Args:
        masks: for each target what `write_mask` takes.
        model: the session's model.
    """
    buffers, values = [], []
    for bound, kept in masks.items():
        if not bound.others and not bound.is_additive and not bound.is_activation:
            # Most targets are parameters of one module, and most masks take the place of others.
            current = bound.module._buffers[mask_buffer(bound.plan.target)]
            if current is not None and is_replaced_by(current, kept, bound.raw.dtype):
                buffers.append(current)
                values.append(kept)
                continue
        write_mask(bound, kept, model)
    if buffers:
        torch._foreach_copy_(buffers, values)


def write_mask(bound: BoundTarget, kept: Tensor, model: nn.Module) -> None:
    """Put a mask in force, in place where one of the same shape is.

    Args:
        bound: the target.
        kept: bool, or 0 and 1, True = kept, a shape that broadcasts to the target. In the target's
            dtype it becomes the mask, so nobody else may hold it.
        model: the session's model, whose dtype the values of an input or output have.
    """
    is_activation = bound.is_activation
    like = next(bound.module.parameters(), kept) if is_activation else bound.raw
    dtype = activation_dtype(model) if is_activation else like.dtype
    if kept.device != like.device:
        kept = kept.to(like.device)
    if bound.is_additive:
        kept = _additive(bound, kept, dtype)
    made: list[Tensor] = []

    def make() -> Tensor:
        # Every holder of a tied parameter reads one and the same mask.
        made.append(made[0] if made else kept.to(dtype))
        return made[0]

    put_buffer(bound.masks(), kept, dtype=dtype, make=make)


def _additive(bound: BoundTarget, kept: Tensor, dtype: torch.dtype) -> Tensor:
    value = float(bound.plan.pruning.mask_value)
    return torch.zeros(kept.shape, dtype=dtype, device=kept.device).masked_fill_(kept == 0, value)
