"""Checks of observations, the same for pruners and quantizers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from tersely.contracts.abilities import ObservesInputs, ObservesOutputs, Sums
from tersely.contracts.pruner import PruningTarget
from tersely.contracts.quantizer import MergesObservations, QuantizationTarget
from tersely.testing.contract import expect
from tersely.testing.tensors import expect_tensors, unwritten


def check_observations_of_batches(
    algorithm: object, target: PruningTarget | QuantizationTarget
) -> None:
    """Check that observations add up or merge over batches, and that the batch is not modified.

    Args:
        algorithm: what observes.
        target: a weight of a contract net.

    Raises:
        ContractError: it does not.
    """
    merge = algorithm.merge if isinstance(algorithm, MergesObservations) else _added
    for observe, values in observers(algorithm, target):
        with unwritten(values, f"{target.name}: the batch"):
            whole = observe(values, target)
        expect_tensors(whole, target.name)
        first, second = (observe(part, target) for part in torch.split(values, 2))
        joined = merge(dict(first), second)
        for name, tensor in whole.items():
            same = name in joined and torch.allclose(
                joined[name].double(), tensor.double(), rtol=1e-3, atol=1e-5
            )
            expect(
                same,
                f"{target.name}: {name!r} of a batch differs from its two halves put together",
            )


def _added(before: Mapping[str, Tensor], part: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    return {name: before[name] + part[name] for name in before}


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
