"""What contracts expect of tensors: unmodified if they were passed in, valid if returned."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from tersely.testing.contract import expect


@contextmanager
def unwritten(tensor: Tensor, what: str) -> Iterator[None]:
    """Fail if the block modifies a tensor.

    Args:
        tensor: what the block is given.
        what: a name of it, for the message.

    Raises:
        ContractError: its values changed.
    """
    fresh = tensor.clone()
    yield
    expect(torch.equal(tensor, fresh), f"{what} was modified")


def expect_tensors(found: object, name: str) -> None:
    """Check that a plugin returned tensors by name.

    Args:
        found: what it returned.
        name: the target that it was asked about.

    Raises:
        ContractError: it is something else.
    """
    is_mapping = isinstance(found, Mapping)
    expect(is_mapping, f"{name}: expected tensors by name, got {type(found).__name__}")
    for key, value in found.items() if isinstance(found, Mapping) else ():
        is_tensor = isinstance(value, Tensor)
        expect(is_tensor, f"{name}: {key!r} is a {type(value).__name__}, expected a tensor")


def expect_finite_tensors(found: Mapping[str, Tensor], name: str) -> None:
    """Check that a plugin returned tensors by name, and that all of their values are finite.

    Args:
        found: what it returned.
        name: the target that it was asked about.

    Raises:
        ContractError: they are not.
    """
    expect_tensors(found, name)
    for key, tensor in found.items():
        expect(bool(tensor.isfinite().all()), f"{name}: {key!r} is not finite everywhere")


def expect_gradients(learned: Mapping[str, Tensor], where: str) -> None:
    """Check that learned tensors have finite gradients.

    Args:
        learned: leaves by name, after backward.
        where: what they belong to, for the message.

    Raises:
        ContractError: one has no gradient, or one that is not finite.
    """
    for name, leaf in learned.items():
        is_reached = leaf.grad is not None and bool(leaf.grad.isfinite().all())
        expect(is_reached, f"{where}: {name!r} gets no finite gradient")


def as_leaves(start: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return copies of learned tensors that gather gradients.

    Args:
        start: the values to begin with, by name.
    """
    return {name: each.detach().clone().requires_grad_() for name, each in start.items()}
