"""Checks that code does not modify a model and does not return cached tensors."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from tersely.testing.contract import expect

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


@contextmanager
def untouched_modules(model: nn.Module) -> Iterator[None]:
    """Fail if the block leaves a changed mode, hook or flag.

    Args:
        model: the model; its values may change.

    Raises:
        ContractError: a module's mode or hooks changed, requires_grad of a parameter changed, or
            gradient recording was switched on or off.
    """
    before, is_recording = _flags(model), torch.is_grad_enabled()
    try:
        yield
        was_switched = torch.is_grad_enabled() != is_recording
    finally:
        torch.set_grad_enabled(is_recording)
    expect(not was_switched, "torch.set_grad_enabled was called; use a with block instead")
    after = _flags(model)
    for name, flag in before.items():
        expect(after.get(name) == flag, f"{name} was changed")


def _flags(model: nn.Module) -> dict[str, object]:
    found: dict[str, object] = {
        f"requires_grad of {name}": value.requires_grad for name, value in model.named_parameters()
    }
    for name, module in model.named_modules():
        found[f"the training mode of {name or 'the model'}"] = module.training
        for kind in _HOOKS:
            found[f"{kind} of {name or 'the model'}"] = list(getattr(module, kind))
    return found


def expect_own(one: Tensor, other: Tensor, what: str) -> None:
    """Fail if results for different inputs share memory.

    Args:
        one: what was returned first.
        other: what was returned for other values.
        what: a description of the results, for the message.

    Raises:
        ContractError: they share memory.
    """
    is_one = one.numel() and one.data_ptr() == other.data_ptr()
    expect(
        not is_one,
        f"{what} of different inputs share memory: the same tensor is returned by two calls",
    )


def expect_same_compiled(net: nn.Module, batch: Tensor) -> None:
    """Fail if torch.compile needs more than one graph or the compiled outputs differ.

    Args:
        net: the model.
        batch: its input.
    """
    torch.compiler.reset()
    compiled = torch.compile(net, fullgraph=True, backend="eager")
    with warnings.catch_warnings():
        # torch 2.13 makes one of its own deprecated objects for every autograd.Function.
        warnings.filterwarnings("ignore", ".*should not be instantiated", DeprecationWarning)
        torch.testing.assert_close(compiled(batch), net(batch))
