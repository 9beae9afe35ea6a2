"""A plugin of each kind, as its author writes and annotates it."""

from collections.abc import Callable
from typing import assert_type

import torch
from torch import Tensor

import tersely
from tersely.testing import check_granularity, check_loss, check_pruner, check_quantizer


@tersely.hookimpl
def tersely_pruners() -> list[tersely.PrunerInfo]:
    """Return the pruner; a hook keeps its type under the decorator."""
    return [
        tersely.PrunerInfo(
            name="by_magnitude",
            implementation="my_plugin:ByMagnitude",
            summary="Absolute values.",
            options={"type": "object", "properties": {"power": {"type": "number"}}},
        )
    ]


assert_type(tersely_pruners(), list[tersely.PrunerInfo])


@tersely.hookimpl
def tersely_distillation_losses() -> list[tersely.LossInfo]:
    """Return the loss."""
    return [tersely.LossInfo(name="halved", implementation="my_plugin:halved")]


class ByMagnitude:
    """A pruner."""

    def __init__(self, *, power: float = 1.0) -> None:
        self.power = power

    def importance(self, target: tersely.PruningTarget) -> Tensor:
        """Return scores."""
        assert_type(target.tensor, Tensor)
        assert_type(target.blocks, tersely.Blocks)
        assert_type(target.plan, tersely.TargetPlan)
        return target.tensor.abs().pow(self.power)


class Pairs:
    """A granularity."""

    def blocks(self, shape: tuple[int, ...], target: tersely.TargetPlan) -> tersely.Blocks:
        """Return the blocks."""
        return tersely.Blocks(size=(2,) + (-1,) * (len(shape) - 1))


class PowerOfTwo:
    """A quantizer."""

    def choose(
        self, low: Tensor, high: Tensor, target: tersely.QuantizationTarget
    ) -> tersely.QParams:
        """Return scale and zero point."""
        qparams = tersely.choose_qparams(low, high, target)
        assert_type(qparams, tersely.QParams)
        return qparams.evolve(scale=torch.exp2(qparams.scale.log2().ceil()))


def halved(student: Tensor, teacher: Tensor) -> Tensor:
    """Return a loss."""
    return (student - teacher).square().mean() / 2


class Watcher:
    """Follows what happens; takes only the arguments that it reads."""

    @tersely.hookimpl
    def tersely_finalized(self, session: tersely.Session) -> None:
        """Read the session."""
        assert_type(session.plan, tersely.Plan)


pruner: tersely.Pruner = ByMagnitude()
granularity: tersely.Granularity = Pairs()
quantizer: tersely.Quantizer = PowerOfTwo()
loss: Callable[[Tensor, Tensor], Tensor] = halved


def registered() -> None:
    """A plugin is registered and removed by name, and checked by the kit."""
    name = tersely.registry().register(Watcher(), name="watcher")
    assert_type(name, str)
    tersely.registry().unregister(name)
    check_pruner("by_magnitude")
    check_granularity("pairs")
    check_quantizer("power_of_two")
    check_loss("halved")


class Scores:
    """Forgets that scores are a tensor."""

    def importance(self, target: tersely.PruningTarget) -> list[float]:
        """Return a list."""
        return list(target.plan.name.encode())


wrong: tersely.Pruner = Scores()  # type: ignore[assignment]  # scores are a tensor
nameless = tersely.PrunerInfo(implementation="my_plugin:Scores")  # type: ignore[call-arg]
