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
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        found = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
        raise SessionError(f"{name}: a mask is a bool tensor, True = kept; found {found}")
    shape = handle.plan.shape
    if shape is None:
        return mask.detach().clone()
    try:
        fits = torch.broadcast_shapes(mask.shape, shape) == torch.Size(shape)
    except RuntimeError:
        fits = False
    if not fits:
        raise SessionError(
            f"{name}: the mask has shape {list(mask.shape)}, expected {list(shape)} or a shape "
            f"that broadcasts to it"
        )
    padded = mask.reshape((1,) * (len(shape) - mask.ndim) + tuple(mask.shape))
    return padded.detach().clone()
