"""Finalizing: masks written into the parameters themselves, and what cannot be written."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import attrs
import torch
from torch import Tensor, nn

from laconic.instrument.classes import (
    instrumented_class,
    instruments_of,
    is_sharded,
    replace_instruments,
)
from laconic.instrument.names import mask_buffer
from laconic.planning.classes import ORIGINAL
from laconic.session.handles import Handle
from laconic.session.mask_state import mask_of


class FinalizeWarning(UserWarning):
    """A finished model still carries instruments, because its masks have no plain equivalent."""


def bake(handles: Sequence[Handle]) -> None:
    """Write every parameter's and buffer's mask into its values, in place.

    Args:
        handles: all targets of a session.
    """
    for handle in handles:
        mask = mask_of(handle)
        if handle.is_activation or mask is None:
            continue
        raw = handle.raw
        with torch.no_grad():
            mask = _like(mask, raw)
            if handle.is_additive:
                raw.add_(mask)
            else:
                raw.mul_(mask)


def _like(mask: Tensor, raw: Tensor) -> Tensor:
    if not is_sharded(raw):
        return mask.to(raw.dtype)
    from torch.distributed.tensor import distribute_tensor  # only sharded models need it

    full = mask.to(raw.dtype).expand(raw.shape).contiguous()
    return distribute_tensor(full, raw.device_mesh, raw.placements)  # type: ignore[attr-defined]  # DTensor


def keep_activations(handles: Sequence[Handle]) -> set[nn.Module]:
    """Reduce modules with input or output masks to exactly those, and say so.

    Args:
        handles: all targets of a session.

    Returns:
        The modules that stay instrumented.
    """
    staying = {
        handle.module: handle
        for handle in handles
        if handle.is_activation and mask_of(handle) is not None
    }
    for module in staying:
        instruments = instruments_of(module)
        for attribute in instruments.parameters:
            module._buffers.pop(mask_buffer(attribute), None)
        replace_instruments(module, attrs.evolve(instruments, parameters={}))
        original: type[nn.Module] = getattr(type(module), ORIGINAL)
        module.__class__ = instrumented_class(original, frozenset(), has_sites=True)
    if staying:
        names = ", ".join(handle.plan.name for handle in staying.values())
        warnings.warn(
            f"a plain module cannot mask its inputs or outputs, so these stay instrumented after "
            f"finalize(): {names}",
            FinalizeWarning,
            stacklevel=4,
        )
    return set(staying)
