"""Taking instruments off for a while, and putting the very same ones back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from tersely.errors import SessionError
from tersely.instrument.modules.attaching import Attachments, replace_class
from tersely.instrument.modules.fused import hooks_of, remove_hooks
from tersely.instrument.names import INSTRUMENTS, NAME, PREFIX


@attrs.frozen(eq=False)
class Snapshot:
    """Everything that tersely added to the modules of a session.

    Attributes:
        classes: module -> the class made on the fly.
        attributes: module -> its reserved attributes.
        buffers: module -> its reserved buffers.
        unsaved: module -> those of them that no checkpoint holds.
        hooks: module -> tersely's hooks before forward.
    """

    classes: Mapping[nn.Module, type[nn.Module]]
    attributes: Mapping[nn.Module, Mapping[str, Any]]
    buffers: Mapping[nn.Module, Mapping[str, Tensor | None]]
    unsaved: Mapping[nn.Module, frozenset[str]]
    hooks: Mapping[nn.Module, Mapping[int, Any]]

    def put_back(self) -> None:
        """Give every module what it had."""
        for module, cls in self.classes.items():
            _strip(module)
            module._buffers.update(self.buffers[module])
            module._non_persistent_buffers_set.update(self.unsaved[module])
            module._forward_pre_hooks.update(self.hooks[module])
            module.__dict__.update(self.attributes[module])
            object.__setattr__(module, "__class__", cls)


def snapshot(attachments: Attachments) -> Snapshot:
    """Remember everything that tersely added to instrumented modules.

    Args:
        attachments: the instrumented modules.
    """
    return Snapshot(
        classes={module: type(module) for module in attachments},
        attributes={module: _ours(module.__dict__) for module in attachments},
        buffers={module: _ours(module._buffers) for module in attachments},
        unsaved={
            module: frozenset(_ours(dict.fromkeys(module._non_persistent_buffers_set)))
            for module in attachments
        },
        hooks={module: hooks_of(module) for module in attachments},
    )


@contextmanager
def suspended(attachments: Attachments, model: nn.Module) -> Iterator[None]:
    """Show the user's own classes, attributes and buffers inside the block.

    What happens to the modules inside stays: hooks, parameters, a class that another tool puts on
    top. If they move to another device or dtype, what was taken off follows them.

    Args:
        attachments: the instrumented modules.
        model: the model they belong to, which tells where modules without parameters are.

    Raises:
        SessionError: a module was instrumented by another session, which did not end inside.
    """
    before = snapshot(attachments)
    whole = _place_of(model.parameters())
    places = {module: _place_of(module.parameters(recurse=False)) for module in attachments}
    plain: dict[nn.Module, type[nn.Module]] = {}
    try:
        for module, cls in attachments.items():
            plain[module] = replace_class(type(module), cls)
            _strip(module)
            object.__setattr__(module, "__class__", plain[module])
        yield
    finally:
        foreign = [one for one in attachments if one in plain and INSTRUMENTS in one.__dict__]
        grown = {} if foreign else _grown(plain)
        before.put_back()
        for module, on_top in grown.items():
            replaced = _with_base(on_top, plain[module], before.classes[module])
            object.__setattr__(module, "__class__", replaced)
        now = _place_of(model.parameters())
        for module, place in places.items():
            if place is None:
                _follow(module, whole, now)
            else:
                _follow(module, place, _place_of(module.parameters(recurse=False)))
        if foreign:
            name = foreign[0].__dict__[NAME]
            raise SessionError(
                f"{name!r} was instrumented by another session while this one was suspended, and "
                "that session did not end; its instruments are gone now: call its finalize() or "
                "detach() inside the block",
                target=name,
            )


def _ours(mapping: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in mapping.items() if name.startswith(PREFIX)}


def _strip(module: nn.Module) -> None:
    for name in _ours(module.__dict__):
        del module.__dict__[name]
    for name in _ours(module._buffers):
        del module._buffers[name]
    module._non_persistent_buffers_set.difference_update(
        [name for name in module._non_persistent_buffers_set if name.startswith(PREFIX)]
    )
    remove_hooks(module)


def _grown(plain: Mapping[nn.Module, type[nn.Module]]) -> dict[nn.Module, type[nn.Module]]:
    """Return the modules whose class got another one on top, as fully_shard does."""
    return {module: type(module) for module, cls in plain.items() if cls in type(module).__bases__}


def _with_base(
    cls: type[nn.Module], base: type[nn.Module], replacement: type[nn.Module]
) -> type[nn.Module]:
    bases = tuple(replacement if one is base else one for one in cls.__bases__)
    body = {
        key: value for key, value in cls.__dict__.items() if key not in ("__dict__", "__weakref__")
    }
    metaclass: Any = type(cls)
    made: type[nn.Module] = metaclass(cls.__name__, bases, body)
    return made


_Place = tuple[torch.device, torch.dtype]


def _place_of(tensors: Iterable[Tensor]) -> _Place | None:
    """Return device and dtype of the first floating-point tensor, or None without one."""
    for tensor in tensors:
        if tensor.is_floating_point():
            return tensor.device, tensor.dtype
    return None


def _follow(module: nn.Module, before: _Place | None, now: _Place | None) -> None:
    if now is None or before is None or now == before:
        return
    device, dtype = now

    def move(tensor: Tensor) -> Tensor:
        return tensor.to(device, dtype if tensor.is_floating_point() else None)

    module._apply(move, recurse=False)  # type: ignore[no-untyped-call]  # of torch
