"""Checks of observations, the same for pruners and quantizers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from tersely.contracts.abilities import ObservesInputs, ObservesOutputs, Sums
from tersely.contracts.pruner import PruningTarget
from tersely.contracts.quantizer import QuantizationTarget
from tersely.testing.contract import expect


def added(before: Mapping[str, Tensor], part: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Return the sum of two observations.

    Args:
        before: one of them.
        part: the other one, with the same names.
    """
    return {name: before[name] + part[name] for name in before}


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


def observers(
    algorithm: object, target: PruningTarget | QuantizationTarget
) -> Iterator[tuple[Callable[[Tensor, Any], Sums], Tensor]]:
    """Yield each observing method of an algorithm with a batch of four samples for it.

    Args:
        algorithm: what observes.
        target: a weight of a contract net.
    """
    shapes = {"Conv2d": (4, 4, 5, 5), "ConvTranspose2d": (4, 8, 2, 2), "Linear": (4, 16)}
    shape = (4, 8, 2, 2) if target.plan.module == "grouped" else shapes[target.plan.module_type]
    inputs = torch.randn(shape, generator=torch.Generator().manual_seed(2))
    if isinstance(algorithm, ObservesInputs):
        yield algorithm.observe_input, inputs
    if isinstance(algorithm, ObservesOutputs):
        with torch.no_grad():
            yield algorithm.observe_output, target.module(inputs)
