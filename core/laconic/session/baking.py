"""Finalizing: masks written into the parameters themselves, and what cannot be written."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import attrs
import torch
from torch import Tensor, nn

from laconic.instrument.attaching import replace_class
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


def keep_activations(handles: Sequence[Handle]) -> dict[nn.Module, list[Handle]]:
    """Reduce modules with input or output masks to exactly those.

    Args:
        handles: all targets of a session.

    Returns:
        The modules that stay instrumented, each with the targets it stays for.
    """
    staying: dict[nn.Module, list[Handle]] = {}
    for handle in handles:
        if handle.is_activation and mask_of(handle) is not None:
            staying.setdefault(handle.module, []).append(handle)
    for module in staying:
        instruments = instruments_of(module)
        for attribute in instruments.parameters:
            module._buffers.pop(mask_buffer(attribute), None)
        replace_instruments(module, attrs.evolve(instruments, parameters={}))
        current = type(module)
        reduced = instrumented_class(getattr(current, ORIGINAL), frozenset(), has_sites=True)
        module.__class__ = replace_class(current, reduced)
    return staying


def warn_of_staying(staying: Mapping[nn.Module, Sequence[Handle]]) -> None:
    """Say which modules are not plain after all.

    Args:
        staying: what `keep_activations` returned.
    """
    if staying:
        names = ", ".join(handle.plan.name for handles in staying.values() for handle in handles)
        warnings.warn(
            f"a plain module cannot mask its inputs or outputs, so these stay instrumented after "
            f"finalize(): {names}",
            FinalizeWarning,
            stacklevel=3,
        )
