"""Masks that the user sets: checked against the targets they are for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from laconic.document.suggest import nearest
from laconic.errors import SessionError
from laconic.planning.addresses import twin
from laconic.session.handles import Handle


def checked_masks(
    masks: Mapping[str, Mapping[str, Tensor]], handles: Sequence[Handle]
) -> dict[Handle, Tensor]:
    """Return the user's masks by target.

    Args:
        masks: module -> target -> bool, True = kept, the target's shape or one that broadcasts
            to it; for an input or output the shape of one sample or a vector over channels.
        handles: the session's targets.

    Raises:
        SessionError: there is no such target, it follows another, or the mask does not fit.
    """
    by_name = {(handle.plan.module, handle.plan.target): handle for handle in handles}
    found = {}
    for module, targets in masks.items():
        for target, mask in targets.items():
            handle = find_handle(module, target, by_name)
            found[handle] = _checked(handle, mask)
    return found


def find_handle(module: str, target: str, by_name: Mapping[tuple[str, str], Handle]) -> Handle:
    """Return the target a module and target name mean.

    Args:
        module: the module's name.
        target: the target's name, in either spelling.
        by_name: (module, target) -> target.

    Raises:
        SessionError: the plan has no such target.
    """
    handle = by_name.get((module, target)) or by_name.get((module, twin(target) or ""))
    if handle is None:
        names = [one.plan.name for one in by_name.values()]
        near = nearest(f"{module}.{target}", names)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise SessionError(f"the plan has no target {module}.{target}{hint}")
    return handle


def _checked(handle: Handle, mask: Tensor) -> Tensor:
    name = handle.plan.name
    if handle.plan.setting.get("align") is not None:
        raise SessionError(f"{name} follows another target; set the mask of that one")
    found = getattr(mask, "dtype", type(mask).__name__)
    if found != torch.bool:
        raise SessionError(f"{name}: a mask is a bool tensor, True = kept; found {found}")
    shape = handle.plan.shape
    if shape is None:
        return mask.detach().clone()
    lengths = zip(reversed(mask.shape), reversed(shape), strict=False)
    if mask.ndim > len(shape) or any(one not in (1, length) for one, length in lengths):
        raise SessionError(
            f"{name}: the mask has shape {list(mask.shape)}, expected {list(shape)} or a shape "
            f"that broadcasts to it"
        )
    padded = mask.reshape((1,) * (len(shape) - mask.ndim) + tuple(mask.shape))
    return padded.detach().clone()
