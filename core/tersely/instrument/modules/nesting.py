"""Nested tensors, which PyTorch's encoders use for padded batches unless a part is watched."""

from __future__ import annotations

from torch import nn

from tersely.instrument.instruments import Instruments
from tersely.instrument.names import INSTRUMENTS

FLAG = "use_nested_tensor"
"""The attribute in which ``nn.TransformerEncoder`` keeps whether it may use nested tensors."""


def is_nesting() -> property:
    """Return the property that replaces `FLAG` in the class of an instrumented encoder.

    PyTorch reads it before it passes nested tensors to the layers, whose parts could not be called
    with them.
    """

    def read(module: nn.Module) -> bool:
        return bool(module.__dict__.get(FLAG)) and not any(
            _is_watched(part) for child in module.children() for part in child.modules()
        )

    def write(module: nn.Module, value: bool) -> None:
        module.__dict__[FLAG] = value

    return property(read, write)


def _is_watched(module: nn.Module) -> bool:
    """Tell whether something sees what a module is called with or returns."""
    if module._forward_pre_hooks or module._forward_hooks:
        return True
    instruments: Instruments | None = module.__dict__.get(INSTRUMENTS)
    return instruments is not None and instruments.has_sites
