"""Checkpoints of compressed models: room for the masks that they bring."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from laconic.instrument.instruments import Instruments
from laconic.instrument.names import INSTRUMENTS, mask_buffer, state_buffer


def make_room(module: nn.Module, state_dict: Mapping[str, Any], prefix: str) -> list[str]:
    """Give an instrumented module a buffer for each mask and scale that a checkpoint holds.

    PyTorch loads only what a module has already, and a module has none before its first one.

    Args:
        module: the instrumented module.
        state_dict: the checkpoint.
        prefix: the module's name in it, with a dot at the end.

    Returns:
        A sentence for each mask that does not fit.
    """
    problems = []
    for target, raw in _targets(module):
        for part in ("scale", "zero_point", "low", "high"):
            name = state_buffer(target, part)
            saved = state_dict.get(prefix + name)
            room = module._buffers.get(name)
            if saved is not None and (room is None or room.shape != saved.shape):
                like = next(module.parameters(), saved)
                module._buffers[name] = torch.empty_like(saved, device=like.device)
        buffer = mask_buffer(target)
        mask = state_dict.get(prefix + buffer)
        if mask is None:
            continue
        current = module._buffers.get(buffer)
        if current is not None and current.shape == mask.shape:
            continue
        if raw is not None and not _broadcasts(mask.shape, raw.shape):
            problems.append(
                f"size mismatch for {prefix}{buffer}: the checkpoint's mask has shape "
                f"{list(mask.shape)}, which does not fit {prefix}{target} with {list(raw.shape)}"
            )
            continue
        like = next(module.parameters(), mask) if raw is None else raw
        dtype = mask.dtype if raw is None else raw.dtype
        module._buffers[buffer] = torch.empty(mask.shape, dtype=dtype, device=like.device)
    return problems


def _targets(module: nn.Module) -> list[tuple[str, Tensor | None]]:
    instruments: Instruments = module.__dict__[INSTRUMENTS]
    found: list[tuple[str, Tensor | None]] = []
    for name in instruments.parameters:
        parameter: Tensor | None = module._parameters.get(name)
        found.append((name, module._buffers.get(name) if parameter is None else parameter))
    found += [(site.target, None) for site in instruments.inputs]
    found += [(site.target, None) for site in instruments.outputs]
    return found


def _broadcasts(shape: torch.Size, full: torch.Size) -> bool:
    return len(shape) == len(full) and all(
        one in (1, length) for one, length in zip(shape, full, strict=True)
    )
