"""Calls of a unit's modules in the dense model, recorded to be repeated without the model."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from tersely.engine.observation.batches import Forward, run_batch
from tersely.engine.observation.padding import PaddingMask, mask_of


@attrs.frozen(eq=False)
class Call:
    """One call of a module.

    Attributes:
        module: its name.
        args: positional arguments, copies of the tensors.
        kwargs: keyword arguments, copies of the tensors.
    """

    module: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


@attrs.frozen(eq=False)
class SeenBatch:
    """The calls of a unit's modules while one batch ran.

    Attributes:
        calls: the calls, in order; those inside another call of the unit are left out.
        is_data: which positions of the batch are data, or None when all of them are.
    """

    calls: tuple[Call, ...]
    is_data: Tensor | None


def see(
    model: nn.Module,
    modules: Sequence[str],
    batches: Iterable[Any],
    *,
    forward: Forward | None = None,
    mask: PaddingMask | None = None,
) -> tuple[SeenBatch, ...] | None:
    """Run batches through the dense model and record the calls of some modules.

    Args:
        model: the model, in evaluation mode.
        modules: names of the modules.
        batches: what to run.
        forward: called as forward(model, batch), or None for the default.
        mask: how to find which positions of a batch are data.

    Returns:
        One for each batch; None if a batch does not call one of the modules, since its weights may
        be read without a call, which only the whole model shows.
    """
    seen = []
    with torch.no_grad():
        for batch in batches:
            with _listening(model, modules) as (calls, called):
                run_batch(model, batch, forward=forward, mask=mask)
            if len(called) < len(set(modules)):
                return None
            seen.append(SeenBatch(tuple(calls), mask_of(batch, mask)))
    return tuple(seen)


def calls_in(model: nn.Module, modules: Sequence[str], batch: Any) -> tuple[Call, ...]:
    """Run one batch and return the calls of some modules.

    Args:
        model: the model, in evaluation mode.
        modules: names of the modules.
        batch: what to run.
    """
    with torch.no_grad(), _listening(model, modules) as (calls, _):
        run_batch(model, batch, forward=None, mask=None)
    return tuple(calls)


def replay(model: nn.Module, batch: SeenBatch) -> None:
    """Call the modules of a unit as they were called; `Session.calibrate` takes it as ``forward``.

    Args:
        model: the model, instrumented or not.
        batch: the calls.
    """
    for call in batch.calls:
        model.get_submodule(call.module)(*call.args, **call.kwargs)


def padding_of(batch: SeenBatch) -> Tensor | None:
    """Return which positions are data; `Session.calibrate` takes it as ``mask``.

    Args:
        batch: the calls.
    """
    return batch.is_data


@contextlib.contextmanager
def _listening(model: nn.Module, modules: Sequence[str]) -> Iterator[tuple[list[Call], set[str]]]:
    calls: list[Call] = []
    called: set[str] = set()
    depth = 0

    def enter(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        nonlocal depth
        called.add(name)
        if depth == 0:
            # Copies, since later code may write into an input.
            calls.append(Call(name, *tree_map(_copied, (args, kwargs))))
        depth += 1

    def leave(*_: object) -> None:
        nonlocal depth
        depth -= 1

    with contextlib.ExitStack() as stack:
        for name in dict.fromkeys(modules):
            module = model.get_submodule(name)

            def before(
                _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], *, name: str = name
            ) -> None:
                enter(name, args, kwargs)

            handle = module.register_forward_pre_hook(before, with_kwargs=True)
            stack.callback(handle.remove)
            stack.callback(module.register_forward_hook(leave, always_call=True).remove)
        yield calls, called


def _copied(leaf: object) -> object:
    return leaf.detach().clone() if isinstance(leaf, Tensor) else leaf
