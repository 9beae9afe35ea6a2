"""Taking instruments off for a while, and putting the very same ones back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import attrs
from torch import Tensor, nn

from tersely.instrument.attaching import Attachments, replace_class
from tersely.instrument.names import INSTRUMENTS, PREFIX


@attrs.frozen(eq=False)
class Snapshot:
    """Everything of ours in the modules of a session.

    Attributes:
        classes: module -> the class made on the fly.
        instruments: module -> what it does.
        buffers: module -> its reserved buffers.
        hooks: module -> its hooks before forward.
    """

    classes: Mapping[nn.Module, type[nn.Module]]
    instruments: Mapping[nn.Module, Any]
    buffers: Mapping[nn.Module, Mapping[str, Tensor | None]]
    hooks: Mapping[nn.Module, Mapping[int, Any]]

    def put_back(self) -> None:
        """Give every module what it had."""
        for module, cls in self.classes.items():
            for name in [name for name in module._buffers if name.startswith(PREFIX)]:
                del module._buffers[name]
            module._buffers.update(self.buffers[module])
            module._forward_pre_hooks.clear()
            module._forward_pre_hooks.update(self.hooks[module])
            module.__dict__[INSTRUMENTS] = self.instruments[module]
            object.__setattr__(module, "__class__", cls)


def snapshot(attachments: Attachments) -> Snapshot:
    """Remember everything of ours in instrumented modules.

    Args:
        attachments: the instrumented modules.
    """
    return Snapshot(
        classes={module: type(module) for module in attachments},
        instruments={module: module.__dict__[INSTRUMENTS] for module in attachments},
        buffers={
            module: {name: one for name, one in module._buffers.items() if name.startswith(PREFIX)}
            for module in attachments
        },
        hooks={module: dict(module._forward_pre_hooks) for module in attachments},
    )


@contextmanager
def suspended(attachments: Attachments) -> Iterator[None]:
    """Show the user's own classes and buffers inside the block.

    Args:
        attachments: the instrumented modules.
    """
    before = snapshot(attachments)
    try:
        for module, cls in attachments.items():
            object.__setattr__(module, "__class__", replace_class(type(module), cls))
            for name in before.buffers[module]:
                del module._buffers[name]
        yield
    finally:
        before.put_back()
