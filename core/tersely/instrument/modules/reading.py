"""Parameters of experts, read for each expert: masked and quantized once in a call of the module.

A forward that goes from expert to expert reads ``self.down_proj[expert]``, and each read would
process the matrices of all experts, and keep them for backward.
"""

from __future__ import annotations

import functools
import threading
import weakref
from collections.abc import Callable
from typing import Any, TypeAlias

import attrs
import torch
from torch import Tensor, nn

from tersely.instrument.names import INSTRUMENTS, READ

_State: TypeAlias = tuple[int, int, bool, bool]
"""Which parameter it was, its version, and whether gradients and inference mode were on."""


@attrs.define(eq=False)
class Reading:
    """What one call of a module has read; mutable because it learns with each read.

    Attributes:
        thread: the thread that makes the call.
        hooks: what packs saved tensors there. Inside activation checkpointing of a part of the
            call they are others; what that part reads is read again when it is recomputed, when
            the call is over, so it has to read for itself in the first place.
        values: target -> what was read, and in which state.
    """

    thread: int
    hooks: object
    values: dict[str, tuple[_State, Tensor]] = attrs.field(factory=dict)

    def is_here(self) -> bool:
        """Tell whether the read is one of this call that may share what others read."""
        # What a transform of torch.func wraps ends with the transform.
        is_plain = not torch._C._are_functorch_transforms_active()
        return is_plain and self.thread == threading.get_ident() and self.hooks == _hooks()


_top_hooks = getattr(torch._C._autograd, "_top_saved_tensors_default_hooks", None)


def _hooks() -> object:
    # Where torch does not tell, no two answers are equal, and every read is one of its own.
    return object() if _top_hooks is None else _top_hooks(True)


def reading_once(original: Callable[..., Any]) -> Callable[..., Any]:
    """Return a forward that remembers what it reads until it returns.

    Args:
        original: the forward of the user's class.
    """

    @functools.wraps(original)
    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        attributes = self.__dict__
        instruments = attributes.get(INSTRUMENTS)  # None where someone kept the forward
        if torch.compiler.is_compiling() or instruments is None or instruments.reused is None:
            return original(self, *args, **kwargs)
        own, outer = Reading(threading.get_ident(), _hooks()), attributes.get(READ)
        attributes[READ] = own
        try:
            return original(self, *args, **kwargs)
        finally:
            # Calls of other threads end in any order; theirs is neither taken off nor put back.
            if attributes.get(READ) is own:
                if outer is None or outer.thread != own.thread:
                    del attributes[READ]
                else:
                    attributes[READ] = outer

    return forward


def known_value(module: nn.Module, name: str) -> Tensor | None:
    """Return what the call under way has read of a target, or None.

    Args:
        module: an instrumented module.
        name: the target.
    """
    reading: Reading | None = module.__dict__.get(READ)
    found = None if reading is None else reading.values.get(name)
    if reading is None or found is None or not reading.is_here():
        return None
    state, value = found
    return value if state == _state(module, name) else None


def know(module: nn.Module, name: str, value: Tensor) -> None:
    """Remember a target for the other reads of the call under way, if there is one.

    Args:
        module: an instrumented module.
        name: the target.
        value: what was read.
    """
    reading: Reading | None = module.__dict__.get(READ)
    state = None if reading is None else _state(module, name)
    if reading is not None and state is not None and reading.is_here():
        reading.values[name] = (state, value)
        if value.grad_fn is not None:
            # A forward may run backward itself, which frees the graph of what was read so far.
            value.grad_fn.register_prehook(functools.partial(_forget, weakref.ref(reading), name))


def _forget(reading: weakref.ref[Reading], name: str, gradients: Any) -> None:
    found = reading()
    if found is not None:
        found.values.pop(name, None)


def _state(module: nn.Module, name: str) -> _State | None:
    raw = module._parameters.get(name)
    if raw is None or raw.is_inference():
        return None  # without a version writes are not seen
    return (id(raw), raw._version, torch.is_grad_enabled(), torch.is_inference_mode_enabled())
