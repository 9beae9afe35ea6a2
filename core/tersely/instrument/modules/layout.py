"""A count of a module's own entries, so that averages pair only what belongs together.

Averages of models pair entries by name or by order. Where entries come only with `compress` or the
first update, a copy from before has fewer, and a mask of one element fits into any place. Modules
of which that may be true hold a buffer of zeros as long as two more than they have entries, before
all entries that come later: copies from before and after differ in it, which is a shape error.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from tersely.instrument.names import LAYOUT, PREFIX

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
    for module in found:
        if LAYOUT not in module._buffers:
            # Of the model's dtype where there is one, so that it moves with the model.
            like = next((one for one in module.parameters() if one.is_floating_point()), None)
            zeros = torch.zeros if like is None else like.detach().new_zeros
            module._buffers[LAYOUT] = zeros(_length(module))
    return found


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
    # What has no elements is a place in which nothing is yet.
    return _MORE + sum(
        name.startswith(PREFIX) and name != LAYOUT and tensor is not None and tensor.numel() > 0
        for name, tensor in module._buffers.items()
    )
