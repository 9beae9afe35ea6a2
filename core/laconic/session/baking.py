"""Finalizing: masks written into the parameters themselves, and what cannot be written."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import attrs
import torch
from torch import nn

from laconic.instrument.attaching import replace_class
from laconic.instrument.classes import (
    instrumented_class,
    instruments_of,
    replace_instruments,
)
from laconic.instrument.names import PREFIX
from laconic.planning.classes import ORIGINAL
from laconic.session.handles import Handle, like_raw
from laconic.session.learning import learned_mask
from laconic.session.mask_state import mask_of


class FinalizeWarning(UserWarning):
    """A finished model still carries instruments, because its masks have no plain equivalent."""


def bake(handles: Sequence[Handle]) -> None:
    """Write what forward uses into every parameter and buffer, in place.

    Args:
        handles: all targets of a session.
    """
    for handle in handles:
        mask = mask_of(handle)
        if handle.is_activation or mask is None:
            continue
        raw = handle.raw
        learned = learned_mask(handle)
        with torch.no_grad():
            if learned is not None:
                handle.write(learned(handle.module, handle.dense()))
            elif handle.is_additive:
                raw.add_(like_raw(mask, raw))
            else:
                raw.mul_(like_raw(mask, raw))


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
            start = f"{PREFIX}{attribute}_"
            for name in [name for name in module._buffers if name.startswith(start)]:
                del module._buffers[name]
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
