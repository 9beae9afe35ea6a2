"""Checkpoints of compressed models: room for the masks and scales that they bring."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tersely.instrument.instruments import Instruments, Transform
from tersely.instrument.masks.mask_values import is_decided, need_whole_masks_of
from tersely.instrument.names import (
    INSTRUMENTS,
    LAYOUT,
    STATE_PARTS,
    UNSCALE,
    known_flag,
    learned_buffer,
    mask_buffer,
    state_buffer,
)
from tersely.instrument.scales.input_scales import ScaleChannels
from tersely.instrument.scales.target_scales import IN_FORCE, are_known, range_from_scale, settle


def make_room(module: nn.Module, state_dict: Mapping[str, Any], prefix: str) -> list[str]:
    """Give an instrumented module a buffer for each mask and scale that a checkpoint holds.

    PyTorch loads only what a module has already, and a module has none before its first one.

    Args:
        module: the instrumented module.
        state_dict: the checkpoint.
        prefix: the module's name in it, with a dot at the end.

    Returns:
        A sentence for each mask, and for the factors of each stack of experts, that do not fit.

    Raises:
        SessionFileError: a mask was averaged.
    """
    # The model has already checked this, unless one of its parts is loaded alone.
    need_whole_masks_of(module, state_dict, prefix)
    problems: list[str] = []
    for target, raw, steps in _targets(module):
        problems += _misplaced_factors(target, steps, state_dict, prefix)
        _make_room_for_scales(module, target, state_dict, prefix)
        if any(getattr(step, "is_learning", False) for step in steps):
            _make_room_for_learned(module, target, state_dict, prefix)
        buffer = mask_buffer(target)
        mask = state_dict.get(prefix + buffer)
        if mask is None or not is_decided(mask):
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
        # Zeros, which any mask may hold: PyTorch reads targets while it loads.
        module._buffers[buffer] = torch.zeros(mask.shape, dtype=dtype, device=like.device)
    return problems


def _misplaced_factors(
    target: str, steps: Sequence[Transform], state_dict: Mapping[str, Any], prefix: str
) -> Iterator[str]:
    factors = state_dict.get(prefix + state_buffer(target, "input_scale"))
    scaled = [one for one in steps if isinstance(one, ScaleChannels) and one.is_of_experts]
    if not scaled or not isinstance(factors, Tensor):
        return
    is_shared = not any(one.place == UNSCALE for one in scaled)
    if is_shared != (factors.ndim == 1):
        theirs = "shared by all experts" if factors.ndim == 1 else "each expert's own"
        ours = "all experts share theirs" if is_shared else "they are not shared"
        yield (
            f"the checkpoint's factors for the inputs of {prefix}{target} are {theirs}, and here "
            f"{ours}: call session.calibrate(batches) and session.compress() first, or load the "
            "saved session with tersely.load_session"
        )


def without_empty(
    module: nn.Module, state_dict: Mapping[str, Any], prefix: str
) -> Mapping[str, Any]:
    """Return a checkpoint without the masks and scales that its model did not have yet.

    Those that the module has stay, as they do with a dense checkpoint. The count of entries is
    left out too: it follows from what the module has.

    Args:
        module: the instrumented module.
        state_dict: the checkpoint.
        prefix: the module's name in it, with a dot at the end.
    """
    left_out = {prefix + LAYOUT}
    for target, _, _ in _targets(module):
        buffer = mask_buffer(target)
        saved, current = state_dict.get(prefix + buffer), module._buffers.get(buffer)
        has_mask = current is not None and is_decided(current)
        if has_mask and saved is not None and not is_decided(saved):
            left_out.add(prefix + buffer)
        if _has_no_scales_yet(state_dict, prefix, target) and are_known(module, target):
            left_out.update(prefix + state_buffer(target, part) for part in STATE_PARTS)
    if left_out.isdisjoint(state_dict):
        return state_dict
    return {key: value for key, value in state_dict.items() if key not in left_out}


def _has_no_scales_yet(state_dict: Mapping[str, Any], prefix: str, target: str) -> bool:
    share = state_dict.get(prefix + state_buffer(target, IN_FORCE))
    return isinstance(share, Tensor) and not share.is_meta and not bool(share)


def _make_room_for_scales(
    module: nn.Module, target: str, state_dict: Mapping[str, Any], prefix: str
) -> None:
    buffers = module._buffers
    if prefix + state_buffer(target, "scale") not in state_dict:
        return
    if _has_no_scales_yet(state_dict, prefix, target) and are_known(module, target):
        return
    for part in STATE_PARTS:
        name = state_buffer(target, part)
        saved, room = state_dict.get(prefix + name), buffers.get(name)
        if saved is None:
            # A checkpoint leaves out zero points that are zero and what its algorithm never has.
            if room is not None and part in _STAYING:
                room.fill_(part == IN_FORCE)
            elif room is not None:
                del buffers[name]
        elif room is None or room.shape != saved.shape:
            like = next(module.parameters(), saved)
            dtype = saved.dtype if room is None else room.dtype
            buffers[name] = torch.empty(saved.shape, dtype=dtype, device=like.device)


_STAYING = ("zero_point", "low", "high", IN_FORCE)


def settle_scales(module: nn.Module, state_dict: Mapping[str, Any], prefix: str) -> None:
    """Put in force the scales that a module has loaded, also where they are an average.

    Args:
        module: the instrumented module.
        state_dict: the checkpoint.
        prefix: the module's name in it, with a dot at the end.

    Raises:
        SessionFileError: they are not an average of scales.
    """
    for target, _, steps in _targets(module):
        if prefix + state_buffer(target, "scale") not in state_dict:
            continue
        if _has_no_scales_yet(state_dict, prefix, target):
            continue
        module.__dict__.pop(known_flag(target), None)
        settle(module, target)
        are_known(module, target)  # told here, since a compiled forward cannot look
        inner = next((found for step in steps if (found := getattr(step, "inner", None))), None)
        if inner is not None and prefix + state_buffer(target, "low") not in state_dict:
            range_from_scale(module, target, inner.grid.quant_min, inner.grid.quant_max)


def _make_room_for_learned(
    module: nn.Module, target: str, state_dict: Mapping[str, Any], prefix: str
) -> None:
    start = prefix + learned_buffer(target, "")
    for key, saved in state_dict.items():
        name = key.removeprefix(prefix)
        room = module._buffers.get(name)
        if key.startswith(start) and (room is None or room.shape != saved.shape):
            like = next(module.parameters(), saved)
            module._buffers[name] = torch.empty_like(saved, device=like.device).requires_grad_()


def _targets(module: nn.Module) -> list[tuple[str, Tensor | None, tuple[Transform, ...]]]:
    instruments: Instruments = module.__dict__[INSTRUMENTS]
    found: list[tuple[str, Tensor | None, tuple[Transform, ...]]] = []
    for name, steps in instruments.parameters.items():
        parameter: Tensor | None = module._parameters.get(name)
        raw = module._buffers.get(name) if parameter is None else parameter
        found.append((name, raw, steps))
    found += [(site.target, None, steps) for site, steps in instruments.inputs.items()]
    found += [(site.target, None, steps) for site, steps in instruments.outputs.items()]
    return found


def _broadcasts(shape: torch.Size, full: torch.Size) -> bool:
    return len(shape) == len(full) and all(
        one in (1, length) for one, length in zip(shape, full, strict=True)
    )
