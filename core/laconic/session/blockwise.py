"""Calibration block by block: each block sees what the compressed blocks before it produce.

A model of equal blocks in a row is run once to learn what enters the first block; from there on
only one block at a time runs, twice: to observe it, and, compressed, to feed the next.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from laconic.session.observing import Forward, call_model


@attrs.frozen(eq=False)
class Call:
    """One call of a block.

    Attributes:
        args: its positional arguments.
        kwargs: its keyword arguments.
    """

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    def run(self, block: nn.Module) -> Any:
        """Call a block with these arguments."""
        return block(*self.args, **self.kwargs)

    def following(self, output: Any) -> Call:
        """Return the call of the next block, whose first tensor is this one's output."""
        hidden = _first(output)
        args = list(self.args)
        for index, value in enumerate(args):
            if isinstance(value, Tensor):
                args[index] = hidden
                return Call(tuple(args), self.kwargs)
        for name, value in self.kwargs.items():
            if isinstance(value, Tensor):
                return Call(self.args, {**self.kwargs, name: hidden})
        return self


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
    """Ends a forward pass once the first block's arguments are known."""


def enter_modules(
    block: nn.Module, calls: Sequence[Call], modules: Sequence[nn.Module]
) -> None:
    """Run a block on calls, each no further than it takes to enter some of its modules.

    The first call runs whole, to see that each of them is entered once.

    Args:
        block: the block.
        calls: its calls.
        modules: modules inside of it, whose inputs are what matters.
    """
    entered = dict.fromkeys(modules, 0)
    is_first = True

    def enter(module: nn.Module, args: tuple[Any, ...]) -> None:
        entered[module] += 1
        if not is_first and all(entered.values()):
            raise _Enough

    hooks: list[RemovableHandle] = []
    try:
        for module in entered:
            hooks.append(module.register_forward_pre_hook(enter))
        for call in calls:
            with contextlib.suppress(_Enough):
                call.run(block)
            if is_first and any(count != 1 for count in entered.values()):
                # Which of them are entered, or how often, may depend on the data.
                for hook in hooks:
                    hook.remove()
            is_first = False
            entered.update(dict.fromkeys(entered, 0))
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def record_calls(
    model: nn.Module,
    blocks: Sequence[nn.Module],
    batches: Sequence[Any],
    forward: Forward | None,
) -> tuple[Call, ...] | None:
    """Return what enters the first block, or None when the blocks do not form a plain chain.

    The first batch runs through the whole model to see that each block's first tensor is the
    output of the one before and that nothing else differs between their calls.

    Args:
        model: the model, in eval mode.
        blocks: the row of blocks.
        batches: the calibration batches.
        forward: called as forward(model, batch), or None for `call_model`.
    """
    call = call_model if forward is None else forward
    seen, outputs = _trace(model, blocks, lambda: call(model, batches[0]))
    if not _is_chain(seen, outputs, len(blocks)):
        return None
    calls = [seen[0]]
    for batch in batches[1:]:
        calls.extend(_enter(blocks[0], lambda batch=batch: call(model, batch)))
    return tuple(calls)


def _trace(
    model: nn.Module, blocks: Sequence[nn.Module], run: Any
) -> tuple[list[Call], list[Any]]:
    seen: list[Call] = []
    outputs: list[Any] = []

    def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen.append(Call(args, dict(kwargs)))

    def leave(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        outputs.append(output)

    hooks = [block.register_forward_pre_hook(enter, with_kwargs=True) for block in blocks]
    hooks += [block.register_forward_hook(leave) for block in blocks]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    return seen, outputs


def _enter(block: nn.Module, run: Any) -> Iterator[Call]:
    found: list[Call] = []

    def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        found.append(Call(args, dict(kwargs)))
        raise _Enough

    hook = block.register_forward_pre_hook(enter, with_kwargs=True)
    try:
        run()
    except _Enough:
        pass
    finally:
        hook.remove()
    yield from found


def _is_chain(seen: Sequence[Call], outputs: Sequence[Any], count: int) -> bool:
    if len(seen) != count or len(outputs) != count:
        return False
    for index in range(count - 1):
        expected = seen[index].following(outputs[index])
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
