"""What a mask may hold: 0 and 1, or 0 and the offset to add (rule B9.4)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.compiler import is_compiling
from torch.utils.hooks import RemovableHandle

from tersely.errors import SessionFileError
from tersely.instrument.instruments import Instruments, Transform
from tersely.instrument.names import (
    INSTRUMENTS,
    MASK,
    WHOLE,
    full_name,
    mask_buffer,
    masked_target,
)

NO_MASK = (0,) * 9
"""The shape of a mask's buffer before there is a mask: of more dimensions than any target has.

No mask can be copied into it or added to it. Dimensions are what traced code may ask for as well.
"""


def is_decided(mask: Tensor) -> bool:
    """Tell whether a buffer holds a mask, and not the place for one.

    Args:
        mask: what the buffer holds.
    """
    return mask.ndim != len(NO_MASK)


def need_whole(mask: Tensor, name: str, *, offset: float | None = None) -> None:
    """Refuse a mask that was averaged, or is damaged.

    Args:
        mask: any shape and dtype.
        name: the target's full name.
        offset: what a mask that is added holds where it masks, or None for one that multiplies.

    Raises:
        SessionFileError: it holds anything else.
    """
    if mask.is_meta or not mask.numel():
        return
    other = 1.0 if offset is None else offset
    # Half precision holds no offset of more digits than it has.
    is_strange = (mask != 0).logical_and_(mask != torch.tensor(other).to(mask))
    count = int(is_strange.sum())
    if not count:
        return
    example = float(mask[is_strange][0])
    raise SessionFileError(
        f"the mask of {name} holds {example:g} in {count} of its {mask.numel()} elements, but a "
        f"mask holds only 0 and {other:g}: averaging a state dict averages its masks too; average "
        "parameters, and take masks from the model that is trained, as the page 'Averaging "
        "weights' of the documentation shows",
        target=name,
    )


def need_whole_as_written(
    module: nn.Module, buffer: str, mask: Tensor, *, offset: float | None = None
) -> None:
    """Refuse to compute with a mask that somebody averaged in place, as EMA copies do.

    A mask is looked at in the first forward after something was written into it. One that
    compiled, exported or vectorized code reads is not: such code cannot look at values.

    Args:
        module: an instrumented module.
        buffer: the name of the buffer.
        mask: what the buffer holds.
        offset: what a mask that is added holds where it masks, or None for one that multiplies.

    Raises:
        SessionFileError: it holds anything else.
    """
    # First, since torch.compile leaves out what follows and need not understand it.
    if is_compiling():
        return
    known = module.__dict__.get(WHOLE)
    try:
        # The identity too: the copy of a mask begins with a version of its own.
        written = (id(mask), mask._version)
    except RuntimeError:  # what is made in inference mode counts no versions
        return
    if known is not None and known.get(buffer) == written:
        return
    if type(mask) is not Tensor or not _has_values():
        return
    need_whole(mask, full_name(module, masked_target(buffer)), offset=offset)
    module.__dict__[WHOLE] = {**(known or {}), buffer: written}


def _has_values() -> bool:
    return not (
        torch._C._get_tracing_state() is not None
        or torch._C._are_functorch_transforms_active()
        or torch._C._len_torch_dispatch_stack()
    )


def need_whole_masks(model: nn.Module, state_dict: Mapping[str, Any], prefix: str) -> None:
    """Refuse a checkpoint with averaged masks, whichever module they belong to.

    Args:
        model: the model that is about to load it.
        state_dict: the checkpoint.
        prefix: the model's name in it, with a dot at the end, or empty.

    Raises:
        SessionFileError: names the first such mask.
    """
    # One tied module may hold its mask under several names.
    for name, module in model.named_modules(remove_duplicate=False):
        if INSTRUMENTS in module.__dict__:
            full = f"{name}." if name else ""
            need_whole_masks_of(module, state_dict, f"{prefix}{full}")


def need_whole_masks_of(module: nn.Module, state_dict: Mapping[str, Any], prefix: str) -> None:
    """Refuse the averaged masks of one module.

    Args:
        module: an instrumented module.
        state_dict: the checkpoint.
        prefix: the module's name in it, with a dot at the end, or empty.

    Raises:
        SessionFileError: names the first such mask.
    """
    for target, step in _masks(module.__dict__[INSTRUMENTS]):
        mask = state_dict.get(prefix + mask_buffer(target))
        if isinstance(mask, Tensor):
            is_additive = getattr(step, "is_additive", False)
            offset = getattr(step, "mask_value", None) if is_additive else None
            need_whole(mask, prefix + target, offset=offset)


def _masks(instruments: Instruments) -> Iterator[tuple[str, Transform]]:
    chains = [
        *instruments.parameters.items(),
        *((site.target, steps) for site, steps in instruments.inputs.items()),
        *((site.target, steps) for site, steps in instruments.outputs.items()),
    ]
    for target, steps in chains:
        for step in steps:
            if step.place == MASK:
                yield target, step


def guard_loading(model: nn.Module) -> RemovableHandle:
    """Let a model check the masks of a checkpoint before any of it is loaded.

    Args:
        model: the session's model.

    Returns:
        What takes the check away again.
    """
    register: Any = model._register_load_state_dict_pre_hook  # its public twin came after 2.4
    handle: RemovableHandle = register(_before_loading, with_module=True)
    return handle


# A function of the module's own, so that copies and pickles of the model keep it.
def _before_loading(
    model: nn.Module, state_dict: Mapping[str, Any], prefix: str, *rest: object
) -> None:
    need_whole_masks(model, state_dict, prefix)
