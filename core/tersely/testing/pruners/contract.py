"""The contract of pruners."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import ClassVar

import attrs
import torch
from torch import Tensor

from tersely.arithmetic.blocks import Blocks, count_blocks
from tersely.contracts.curvature import ObservesCurvature
from tersely.contracts.pruner import (
    Learns,
    MakesNewScores,
    ObservesGradients,
    Pruner,
    PruningTarget,
    ScoresBlocks,
    Solves,
)
from tersely.contracts.whole_model import ScoresModel
from tersely.errors import PlanError
from tersely.json_value import Json
from tersely.registry.descriptors import PrunerInfo
from tersely.registry.registry import registry
from tersely.testing.contract import Kind, as_findings, expect, require
from tersely.testing.models import (
    DTYPES,
    ContractNet,
    contract_net,
    granularity_values,
    narrow_net,
    net_with_zeros,
    other_layout,
)
from tersely.testing.observations import check_observations_of_batches
from tersely.testing.pruners.abilities import (
    check_curvature_observations,
    check_factor,
    check_gradient_observations,
    check_learned,
    check_penalty,
    solve_all,
)
from tersely.testing.pruners.budgets import check_granularity_budgets
from tersely.testing.pruners.preparing import (
    compress,
    is_new_tensor,
    prepare,
    ranked_targets,
    ranking,
)
from tersely.testing.pruners.sessions import MODULES, PrunerSessionChecks
from tersely.testing.untouched.modules import expect_own, untouched_modules
from tersely.testing.untouched.random_state import untouched_random_state


@attrs.define(eq=False)
class PrunerContract(PrunerSessionChecks):
    """What every pruner must meet.

    An algorithm first gets what it requires: two batches of calibration if it observes
    modules, and some steps of a plain training loop if it learns or observes gradients.
    """

    kind: ClassVar[Kind] = "pruners"

    @property
    def info(self) -> PrunerInfo:
        """The pruner's descriptor."""
        return registry().pruners.info(self.name)

    def use(self) -> None:
        """Prune a small net."""
        compress(prepare(contract_net(), self.recipe()))

    def check_scores(self) -> None:
        """Scores are finite floats with the shape of the tensor or of its blocks."""
        # Gradients of this model overflow in float16, whatever the algorithm does with them.
        has_gradients = isinstance(
            self.make(), ScoresModel | ObservesGradients | ObservesCurvature | Learns
        )
        for dtype in DTYPES[:-1] if has_gradients else DTYPES:
            for target, scores in self._scored(contract_net(dtype)):
                where = f"{target.name} in {dtype}"
                shape = tuple(target.tensor.shape)
                shapes = (shape, count_blocks(target.blocks.size, shape))
                expect(
                    tuple(scores.shape) in shapes,
                    f"{where}: scores have shape {tuple(scores.shape)}, expected one of {shapes}",
                )
                expect(
                    scores.is_floating_point(),
                    f"{where}: scores have dtype {scores.dtype}, expected floats",
                )
                expect(bool(scores.isfinite().all()), f"{where}: scores are not all finite")

    def check_determinism(self) -> None:
        """The same weights give the same scores, from one object and from a new one."""
        net = contract_net()
        first = self._scored(net)
        second = self._scored(contract_net())
        for (target, one), (_, other) in zip(first, second, strict=True):
            expect(
                torch.equal(one, other),
                f"{target.name}: two objects with the same options return different scores",
            )
            expect_own(one, other, f"{target.name}: scores")
        pruner = self.make()
        calls = [ranking(pruner, net, [target for target, _ in first]) for _ in range(2)]
        for target, _ in first:
            one, other = (_scores(call, target) for call in calls)
            expect(torch.equal(one, other), f"{target.name}: two calls return different scores")
            is_new = not isinstance(pruner, MakesNewScores) or is_new_tensor(one, other, target)
            expect(
                is_new,
                f"{target.name}: new_scores is set, but the scores share memory with another "
                "tensor",
            )

    def check_order(self) -> None:
        """The scores of a target do not depend on the targets scored before it."""
        net = contract_net()
        targets = self._targets(net)
        for turned in (targets, targets[::-1]):
            scored = {target.name: scores for target, scores in self._score(turned, net)}
            if turned is targets:
                first = scored
        for name, scores in scored.items():
            same = torch.equal(scores, first[name])
            expect(same, f"{name}: its scores change with the targets that were scored before it")

    def check_layout(self) -> None:
        """The memory layout of a weight does not change its scores."""
        net = contract_net()
        first = self._scored(net)
        # Scores of a whole model come from its forward, which chooses its own memory layout.
        turned = [
            attrs.evolve(target, tensor=other_layout(target.tensor.detach())) for target, _ in first
        ]
        for (target, one), (_, other) in zip(first, self._score(turned, net), strict=True):
            same = torch.allclose(one.double(), other.double(), rtol=1e-3, atol=1e-5)
            expect(same, f"{target.name}: its scores change with its memory layout")

    def check_blocks(self) -> None:
        """A pruner that scores blocks by their values alone scores stacked tensors as each."""
        pruner = self.make()
        if not isinstance(pruner, ScoresBlocks):
            return
        for target in self._targets(contract_net()):
            tensor, size = target.tensor.detach(), target.blocks.size
            if target.blocks.index is not None:
                continue
            both = pruner.block_scores(torch.stack([tensor, 2 * tensor]), Blocks((1, *size)))
            for found, alone in zip(both, (tensor, 2 * tensor), strict=True):
                same = torch.equal(found, pruner.block_scores(alone, target.blocks))
                expect(same, f"{target.name}: other scores where tensors are stacked")

    def check_narrow(self) -> None:
        """A convolution with one filter and a linear layer with one input are pruned or refused."""
        recipe = self.recipe(modules=("conv", "linear"))
        with as_findings(), suppress(PlanError):
            compress(prepare(narrow_net(), recipe))

    def check_weights_untouched(self) -> None:
        """Scoring does not modify weights, training modes, hooks or requires_grad."""
        net = contract_net()
        targets = self._targets(net)
        for value in net.parameters():
            value.grad = torch.ones_like(value)
        before = {name: (value.clone(), value._version) for name, value in net.named_parameters()}
        with untouched_modules(net):
            self._score(targets, net)
        for name, value in net.named_parameters():
            is_kept = value.grad is not None and bool((value.grad == 1).all())
            expect(is_kept, f"the gradient of {name} was changed")
            expect(torch.equal(value, before[name][0]), f"{name} was changed")
            is_kept = value._version == before[name][1] or isinstance(self.make(), ScoresModel)
            expect(is_kept, f"{name} was modified in place")

    def check_rows_of_zeros(self) -> None:
        """A row of zeros and a weight of all zeros get finite scores."""
        for target, scores in self._scored(net_with_zeros()):
            expect(bool(scores.isfinite().all()), f"{target.name}: scores are not all finite")
        session = prepare(net_with_zeros(), self.recipe())
        with as_findings():
            compress(session)

    def check_random_state(self) -> None:
        """Pruning leaves the global random state unchanged."""
        net = contract_net()
        with untouched_random_state():
            compress(prepare(net, self.recipe()))

    def check_observations(self) -> None:
        """Observations add up over batches and steps, and observing modifies nothing."""
        pruner, targets = self.make(), self._targets(contract_net())
        check_curvature_observations(pruner, targets)
        for target in targets:
            check_observations_of_batches(pruner, target)
            check_gradient_observations(pruner, target)

    def check_learning(self) -> None:
        """Learned tensors, the penalty and the growth of sparsity have valid values."""
        pruner = self.make()
        targets = self._targets(contract_net())
        for target in targets:
            check_learned(pruner, target)
        check_penalty(pruner, targets)
        check_factor(pruner)

    def check_solving(self) -> None:
        """Solving does not modify the weight, and an order of inputs contains each input once."""
        session = prepare(contract_net(), self.recipe())
        before = {name: value._version for name, value in session.model.named_parameters()}
        solve_all(self.make(), ranked_targets(session))
        for name, value in session.model.named_parameters():
            expect(value._version == before[name], f"{name} was modified in place")

    def check_budgets(self) -> None:
        """Every ratio is met exactly with every granularity."""
        for granularity in granularity_values(self.info):
            check_granularity_budgets(self.recipe, granularity, MODULES)

    def _targets(self, net: ContractNet) -> list[PruningTarget]:
        return ranked_targets(prepare(net, self.recipe()))

    def _score(
        self, targets: list[PruningTarget], net: ContractNet
    ) -> list[tuple[PruningTarget, Tensor]]:
        pruner = self.make()
        if isinstance(pruner, Solves):
            return []
        pruner = ranking(pruner, net, targets)
        return [(target, _scores(pruner, target)) for target in targets]

    def _scored(self, net: ContractNet) -> list[tuple[PruningTarget, Tensor]]:
        return self._score(self._targets(net), net)


def _scores(pruner: Pruner, target: PruningTarget) -> Tensor:
    scores = pruner.importance(target)
    is_tensor = isinstance(scores, Tensor)
    expect(is_tensor, f"{target.name}: expected a tensor of scores, got {type(scores).__name__}")
    return scores


def check_pruner(name: str, *, options: Mapping[str, Json] | None = None) -> None:
    """Run the whole contract of a pruner.

    Args:
        name: its name in the registry.
        options: options to make it with; by default the first example of its options schema.

    Raises:
        ContractError: lists every check that failed.
        PluginError: no plugin provides the name.
    """
    require(PrunerContract(name, options or {}))
