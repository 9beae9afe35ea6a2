"""Calibration block by block: each block sees what the compressed blocks before it produce.

A model of equal blocks in a row is run once to learn what enters the first block; from there on
only one block at a time runs, twice: to observe it, and, compressed, to feed the next.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from functools import partial
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from tersely.contracts.calling import call_model
from tersely.engine.observation.batches import Batches, call_observed, first_sample, run_batch
from tersely.engine.observation.padding import current_padding, leaving_out


@attrs.frozen(eq=False)
class Call:
    """One call of a block.

    Attributes:
        args: its positional arguments.
        kwargs: its keyword arguments.
        is_data: which positions of its batch are data; None when all of them are.
    """

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    is_data: Tensor | None = None

    def run(self, block: nn.Module) -> Any:
        """Call a block with these arguments."""
        # A block writes into the cache of keys and values that it is given, and it runs twice.
        args = [_unwritten(value) for value in self.args]
        kwargs = {name: _unwritten(value) for name, value in self.kwargs.items()}
        with leaving_out(self.is_data):
            return block(*args, **kwargs)

    def next_call(self, output: Any) -> Call:
        """Return the call of the next block, whose first tensor is this one's output."""
        hidden = _first(output)
        args = list(self.args)
        for index, value in enumerate(args):
            if isinstance(value, Tensor):
                args[index] = hidden
                return Call(tuple(args), self.kwargs, self.is_data)
        for name, value in self.kwargs.items():
            if isinstance(value, Tensor):
                return Call(self.args, {**self.kwargs, name: hidden}, self.is_data)
        return self


def _unwritten(value: Any) -> Any:
    is_cache = callable(getattr(value, "get_seq_length", None))
    return copy.deepcopy(value) if is_cache else value


def find_blocks(model: nn.Module, compressed: set[nn.Module]) -> tuple[nn.Module, ...]:
    """Return the row of equal blocks that holds the most modules to compress, or nothing.

    Args:
        model: the model.
        compressed: the modules with targets.
    """
    best: tuple[nn.Module, ...] = ()
    most = 0
    for module in model.modules():
        if not isinstance(module, (nn.ModuleList, nn.Sequential)) or len(module) < _SMALLEST_ROW:
            continue
        blocks = tuple(module)
        if len({type(block).__name__ for block in blocks}) != 1:
            continue
        count = sum(1 for block in blocks for inner in block.modules() if inner in compressed)
        if count > most:
            best, most = blocks, count
    return best


_SMALLEST_ROW = 2


class _Enough(Exception):  # noqa: N818  # control flow, not an error
    """Ends a forward pass once it has provided what it was run for."""


@attrs.frozen(eq=False)
class Chain:
    """A row of blocks, each of which is fed by the one before and by nothing else that differs.

    Attributes:
        calls: the calls of the first block, one for each batch.
        once: the modules inside of the blocks that one batch enters once.
    """

    calls: tuple[Call, ...]
    once: frozenset[nn.Module]


@torch.no_grad()
def find_chain(
    model: nn.Module,
    blocks: Sequence[nn.Module],
    batches: Batches,
) -> Chain | None:
    """Return what enters the first block, or None when the blocks do not form a plain chain.

    The first sample runs through the whole model, to see that each block's first tensor is the
    output of the one before and that nothing else differs between their calls. Where only the
    caller's ``forward`` knows what a sample is, the first batch does.

    Args:
        model: the model, in eval mode.
        blocks: the row of blocks.
        batches: the calibration batches.
    """
    forward = batches.forward
    call = call_observed if forward is None else forward
    trace = None if forward is not None else _trace_sample(model, blocks, batches.batches[0])
    if trace is None:
        trace = _trace(blocks, lambda: call(model, batches.batches[0]))
    if not _is_chain(trace.seen, trace.outputs, len(blocks)):
        return None
    calls: list[Call] = []
    for batch in batches.batches:
        run = partial(run_batch, model, batch, forward=forward, mask=batches.mask)
        calls.extend(_enter(blocks[0], run))
    once = frozenset(module for module, count in trace.entered.items() if count == 1)
    return Chain(tuple(calls), once)


def enter_modules(block: nn.Module, calls: Sequence[Call], modules: Set[nn.Module]) -> None:
    """Run a block on calls, each no further than it takes to enter all of some modules.

    Args:
        block: the block.
        calls: its calls.
        modules: modules inside of it that each call enters once; their own hooks run first.
    """
    missing: set[nn.Module] = set()

    def enter(module: nn.Module, args: tuple[Any, ...]) -> None:
        missing.discard(module)
        if not missing:
            raise _Enough

    hooks = []
    try:
        for module in modules:
            hooks.append(module.register_forward_pre_hook(enter))
        for call in calls:
            missing.update(modules)
            with contextlib.suppress(_Enough):
                call.run(block)
    finally:
        for hook in hooks:
            hook.remove()


@attrs.frozen(eq=False)
class _Trace:
    seen: list[Call] = attrs.field(factory=list)
    outputs: list[Any] = attrs.field(factory=list)
    entered: dict[nn.Module, int] = attrs.field(factory=dict)


def _trace_sample(model: nn.Module, blocks: Sequence[nn.Module], batch: Any) -> _Trace | None:
    sample = first_sample(batch)
    try:
        return None if sample is None else _trace(blocks, lambda: call_model(model, sample))
    except Exception:  # foreign code: a model may insist on its batch size, and then gets it
        return None


def _trace(blocks: Sequence[nn.Module], run: Callable[[], object]) -> _Trace:
    trace = _Trace()

    def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        trace.seen.append(Call(args, dict(kwargs)))

    def leave(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        trace.outputs.append(output)

    def count(module: nn.Module, args: tuple[Any, ...]) -> None:
        trace.entered[module] = trace.entered.get(module, 0) + 1

    hooks = [block.register_forward_pre_hook(enter, with_kwargs=True) for block in blocks]
    hooks += [block.register_forward_hook(leave) for block in blocks]
    inner = dict.fromkeys(module for block in blocks for module in block.modules())
    hooks += [module.register_forward_pre_hook(count) for module in inner]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    return trace


def _enter(block: nn.Module, run: Callable[[], object]) -> Iterator[Call]:
    found: list[Call] = []

    def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        found.append(Call(args, dict(kwargs), current_padding()))
        raise _Enough

    hook = block.register_forward_pre_hook(enter, with_kwargs=True)
    try:
        with contextlib.suppress(_Enough):
            run()
    finally:
        hook.remove()
    yield from found


def _is_chain(seen: Sequence[Call], outputs: Sequence[Any], count: int) -> bool:
    if len(seen) != count or len(outputs) != count:
        return False
    for index in range(count - 1):
        expected = seen[index].next_call(outputs[index])
        if not _same(expected.args, seen[index + 1].args):
            return False
        if not _same(dict(expected.kwargs), dict(seen[index + 1].kwargs)):
            return False
    return True


def _same(one: Any, other: Any) -> bool:
    if one is other:
        return True
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.shape == other.shape and torch.equal(one, other)
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(_same, one, other))
    return type(one) is type(other) and bool(one == other)


def _first(output: Any) -> Any:
    if isinstance(output, Mapping):
        return next(iter(output.values()))
    return output[0] if isinstance(output, (list, tuple)) else output
