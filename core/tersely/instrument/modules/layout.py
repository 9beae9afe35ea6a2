"""A count of a module's own entries, so that averages pair only what belongs together.

Averages of models pair entries by name or by order. Where entries come only with `compress` or the
first update, a copy from before has fewer, and a mask of one element fits into any place. Modules
of which that may be true hold a buffer of zeros as long as two more than they have entries, before
all entries that come later: copies from before and after differ in it, which is a shape error.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from tersely.instrument.names import LAYOUT, PREFIX
from tersely.instrument.zeros import place_zeros

_MORE = 2
"""A buffer of one element would be averaged with one of any length."""


def place_layout(modules: Iterable[nn.Module]) -> tuple[nn.Module, ...]:
    """Let modules count their entries.

    Args:
        modules: instrumented modules.

    Returns:
        Each of them once.
    """
    found = tuple(dict.fromkeys(modules))
    alike: dict[tuple[torch.dtype, torch.device, int], list[nn.Module]] = {}
    for module in found:
        if LAYOUT not in module._buffers:
            # Of the model's dtype where there is one, so that it moves with the model.
            like = _first_float(module)
            dtype = torch.get_default_dtype() if like is None else like.dtype
            device = torch.get_default_device() if like is None else like.device
            alike.setdefault((dtype, device, _length(module)), []).append(module)
    for (dtype, device, length), some in alike.items():
        place_zeros(some, LAYOUT, torch.zeros(length, dtype=dtype, device=device))
    return found


def _first_float(module: nn.Module) -> Tensor | None:
    # Most modules have parameters of their own, which need no walk of those inside.
    for parameter in module._parameters.values():
        if parameter is not None and parameter.is_floating_point():
            return parameter
    return next((one for one in module.parameters() if one.is_floating_point()), None)


def renew_layout(modules: Iterable[nn.Module]) -> None:
    """Count again, after entries may have come or gone.

    Args:
        modules: instrumented modules; those that do not count are left alone.
    """
    for module in modules:
        before = module._buffers.get(LAYOUT)
        if before is not None and len(before) != _length(module):
            module._buffers[LAYOUT] = before.new_zeros(_length(module))


def _length(module: nn.Module) -> int:
    count = _MORE
    for name, tensor in module._buffers.items():
        # What has no elements is a place in which nothing is yet, of which most modules have some.
        is_filled = tensor is not None and tensor.numel()
        if is_filled and name.startswith(PREFIX) and name != LAYOUT:
            count += 1
    return count
