"""Counting parameters, operations and bytes of a model and of each module."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import attrs
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count
from torch.utils.module_tracker import ModuleTracker

from tersely.instrument.names import PREFIX
from tersely.shrinking.graph.program import evaluating

Shape = Sequence[int]


@attrs.frozen
class Counts:
    """The counts of a module, without the modules in it.

    Attributes:
        parameters: elements of its parameters; a shared one counts for its first module.
        macs: multiply-accumulate operations of one call of the model, as torch counts them.
        bytes: the bytes of its parameters and buffers.
    """

    parameters: int
    macs: int
    bytes: int


def count(model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Counts]:
    """Return the counts of every module of a model.

    Args:
        model: the model.
        args: positional arguments of a call.
        kwargs: keyword arguments of the call.

    Returns:
        Full name of a module, empty for the root -> its counts.

    Raises:
        Exception: whatever the model raises when it is called.
    """
    macs = _macs(model, args, kwargs)
    met: set[int] = set()
    found: dict[str, Counts] = {}
    for name, module in model.named_modules():
        parameters = {id(one): one for one in module._parameters.values() if one is not None}
        buffers = {
            id(one): one
            for key, one in module._buffers.items()
            if one is not None and not key.startswith(PREFIX)
        }
        own = {key: one for key, one in parameters.items() if key not in met}
        held = {key: one for key, one in {**buffers, **own}.items() if key not in met}
        met |= {*parameters, *buffers}
        found[name] = Counts(
            parameters=sum(one.numel() for one in own.values()),
            macs=macs.get(name, 0),
            bytes=sum(one.numel() * one.element_size() for one in held.values()),
        )
    return found


def total(counts: Mapping[str, Counts]) -> Counts:
    """Return the counts of the whole model.

    Args:
        counts: the result of `count`.
    """
    return Counts(
        parameters=sum(one.parameters for one in counts.values()),
        macs=sum(one.macs for one in counts.values()),
        bytes=sum(one.bytes for one in counts.values()),
    )


def _attention(query: Shape, key: Shape, value: Shape, *_: Any, **__: Any) -> int:
    count: Callable[..., int] = sdpa_flop_count  # not typed in torch
    return count(query, key, value)


_MISSING = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention}
"""Operators that torch's counter lacks: it knows the kernels of accelerators."""


class _Forwards(ModuleTracker):
    """Tracks the modules that run, without gradients.

    Torch's own tracker registers a gradient hook on parameters that are passed to a module expanded
    or sliced, such as learned queries, which fails without gradients.
    """

    def _fw_pre_hook(self, mod: nn.Module, _: object) -> None:
        super()._fw_pre_hook(mod, ())

    def _fw_post_hook(self, mod: nn.Module, _: object, __: object) -> None:
        super()._fw_post_hook(mod, (), ())


def operation_counter() -> FlopCounterMode:
    """Return torch's counter of floating-point operations, two for each multiply-accumulate."""
    counter = FlopCounterMode(display=False, custom_mapping=_MISSING)
    counter.mod_tracker = _Forwards()
    return counter


@contextlib.contextmanager
def _without_fused_layers() -> Iterator[None]:
    """Let encoder layers run the operators that the counter knows, rather than a fused one."""
    is_enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(is_enabled)


def _macs(model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, int]:
    """Return the operations of each module outside of the modules in it."""
    counter = operation_counter()
    with evaluating(model), _without_fused_layers(), torch.no_grad(), counter:
        model(*args, **kwargs)
    root = type(model).__name__
    within = {
        name.removeprefix(root).removeprefix("."): sum(by_operator.values()) // 2
        for name, by_operator in counter.get_flop_counts().items()
        if name == root or name.startswith(f"{root}.")
    }
    within[""] = int(counter.get_total_flops()) // 2
    own = dict(within)
    for name, macs in within.items():
        around = name
        while around:
            # The operations of a module that its parent does not call are subtracted from the
            # caller's.
            around = around.rpartition(".")[0]
            if around in within:
                own[around] -= macs
                break
    return own
