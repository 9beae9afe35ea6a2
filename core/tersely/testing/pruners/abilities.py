"""Checks of each ability that a pruner declares."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from fractions import Fraction

import torch
from torch import Tensor, nn

from tersely.contracts.abilities import Penalizes
from tersely.contracts.curvature import Curvature, ObservesCurvature
from tersely.contracts.ordering import OrdersInputs
from tersely.contracts.pruner import (
    Grows,
    Learns,
    ObservesGradients,
    PruningTarget,
    Solves,
)
from tersely.pruning.returned_values import check_order
from tersely.testing.contract import ContractError, expect
from tersely.testing.tensors import (
    as_leaves,
    expect_finite_tensors,
    expect_gradients,
    expect_tensors,
    unwritten,
)

_STEPS = (0, 1, 10, 100, 10_000, 10_000_000)


def check_gradient_observations(pruner: object, target: PruningTarget) -> None:
    """Check that observing does not modify the gradient and that observations are finite.

    Args:
        pruner: the algorithm.
        target: a weight of a contract net.

    Raises:
        ContractError: it does not.
    """
    if not isinstance(pruner, ObservesGradients):
        return
    generator = torch.Generator().manual_seed(3)
    for gradient in (
        torch.randn(target.tensor.shape, generator=generator),
        torch.zeros(target.tensor.shape),
    ):
        with unwritten(gradient, f"{target.name}: the gradient"):
            found = pruner.observe_gradient(gradient, target)
        expect_finite_tensors(found, target.name)
        for name, tensor in found.items():
            shared = tensor.untyped_storage().data_ptr() == gradient.untyped_storage().data_ptr()
            expect(
                not shared,
                f"{target.name}: {name!r} is the gradient itself, which zero_grad() overwrites; "
                "return a copy",
            )


def check_curvature_observations(pruner: object, targets: Sequence[PruningTarget]) -> None:
    """Check that observations of curvature are finite for a quadratic and for a linear loss.

    Args:
        pruner: the algorithm.
        targets: weights of a contract net.

    Raises:
        ContractError: it is not, or there is not one mapping for each target.
    """
    if not isinstance(pruner, ObservesCurvature):
        return
    weights = [target.tensor.detach().clone().requires_grad_() for target in targets]
    for loss in (sum(one.square().sum() for one in weights), sum(one.sum() for one in weights)):
        assert isinstance(loss, Tensor)  # there is a target
        gradients = torch.autograd.grad(loss, weights, create_graph=True)
        found = pruner.observe_curvature(Curvature(loss, weights, gradients, 0), targets)
        several = len(found) == len(targets)
        expect(
            several,
            f"observe_curvature() returned {len(found)} observations for {len(targets)} targets",
        )
        for target, part in zip(targets, found, strict=True):
            expect_finite_tensors(part, target.name)
        try:
            torch.autograd.backward(loss)
        except RuntimeError as error:
            raise ContractError(
                f"observe_curvature() freed the graph of the loss; pass retain_graph=True: {error}"
            ) from error


def check_learned(pruner: object, target: PruningTarget) -> None:
    """Check that learned tensors are floats that the masked weight depends on, in its own dtype.

    Args:
        pruner: the algorithm.
        target: a weight of a contract net.

    Raises:
        ContractError: they are not.
    """
    if not isinstance(pruner, Learns):
        return
    start = pruner.start(target)
    expect_tensors(start, target.name)
    meta = nn.Parameter(target.tensor.detach().to("meta"))
    for name, tensor in pruner.start(_with_tensor(target, meta)).items():
        same = tensor.shape == start[name].shape
        expect(same, f"{target.name}: {name!r} has another shape on the meta device")
    learned = as_leaves(start)
    for mask in (None, torch.ones(target.tensor.shape)):
        value = target.tensor.detach().clone().requires_grad_()
        found = pruner.masked(value, mask, learned)
        where = f"{target.name}, {'no mask yet' if mask is None else 'with a mask'}"
        same = (found.shape, found.dtype) == (value.shape, value.dtype)
        expect(same, f"{where}: masked() returned {found.dtype} of shape {list(found.shape)}")
        expect(
            bool(found.isfinite().all()), f"{where}: masked() returned values that are not finite"
        )
        if mask is None:
            continue
        torch.autograd.backward(found.square().sum())
        expect_gradients(learned, where)


def check_penalty(pruner: object, targets: list[PruningTarget]) -> None:
    """Check that a penalty is a finite 0-dim tensor.

    Args:
        pruner: the algorithm.
        targets: weights of a contract net.

    Raises:
        ContractError: it is something else.
    """
    if not isinstance(pruner, Penalizes):
        return
    learned = [dict(target.learned) for target in targets]
    for steps in _STEPS[:4]:
        found = pruner.penalty(learned, steps)
        is_tensor = isinstance(found, Tensor)
        expect(is_tensor, f"penalty() returned {type(found).__name__}, expected a 0-dim tensor")
        expect(found.ndim == 0, f"penalty() has shape {list(found.shape)}, expected a 0-dim tensor")
        expect(
            bool(found.isfinite()), f"after {steps} steps the penalty is {float(found.detach())}"
        )


def check_factor(pruner: object) -> None:
    """Check that the share of an algorithm with its own schedule is in [0, 1] and never falls.

    Args:
        pruner: the algorithm.

    Raises:
        ContractError: it does not.
    """
    if not isinstance(pruner, Grows):
        return
    shares: list[float | Fraction] = [pruner.factor(steps) for steps in _STEPS]
    for steps, share in zip(_STEPS, shares, strict=True):
        good = math.isfinite(share) and 0 <= share <= 1
        expect(good, f"after {steps} steps the share is {float(share)}, expected one in [0, 1]")
    expect(shares == sorted(shares), f"the share falls: {[float(share) for share in shares]}")
    expect(shares[-1] == 1, f"the share ends at {float(shares[-1])}, expected 1")


def solve_all(pruner: object, targets: Iterable[PruningTarget]) -> None:
    """Run the solver of an algorithm on targets, keeping the larger half of the scores.

    Args:
        pruner: the algorithm; it may also order the inputs of targets.
        targets: weights of a contract net.

    Raises:
        ContractError: an order changes from one call to the next.
        PluginError: it is not a permutation of a target's inputs.
    """
    if isinstance(pruner, OrdersInputs):
        for target in targets:
            one, other = (check_order(pruner.input_order(target), target) for _ in range(2))
            same = torch.equal(one, other)
            expect(same, f"{target.name}: two calls return different orders of its inputs")
    if isinstance(pruner, Solves):
        for target in targets:
            with torch.no_grad():
                pruner.solve(target, _keep_the_larger_half)


def _keep_the_larger_half(scores: Tensor) -> Tensor:
    kept = torch.zeros(scores.numel(), dtype=torch.bool)
    kept[scores.flatten().argsort(descending=True)[: scores.numel() - scores.numel() // 2]] = True
    return kept.reshape(scores.shape)


def _with_tensor(target: PruningTarget, tensor: Tensor) -> PruningTarget:
    return PruningTarget(
        plan=target.plan, tensor=tensor, blocks=target.blocks, module=target.module
    )
