"""The contract of pruners."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Mapping, Sequence
from typing import ClassVar

import attrs
import torch
from torch import Tensor

from tersely.arithmetic.blocks import count_blocks
from tersely.contracts.pruner import MakesNewScores, Pruner, PruningTarget, Solves
from tersely.contracts.whole_model import ScoresModel
from tersely.json_value import Json
from tersely.registry.descriptors import PrunerInfo
from tersely.registry.registry import registry
from tersely.session.opening import attach, load_session
from tersely.session.session import Session
from tersely.testing.budgets import check_granularity_budgets
from tersely.testing.contract import Contract, Kind, expect, require
from tersely.testing.findings import as_findings
from tersely.testing.models import (
    DTYPES,
    ContractNet,
    contract_batches,
    contract_net,
    granularity_values,
    has_own_classes,
    net_with_zeros,
    with_weights_of,
)
from tersely.testing.pruner_abilities import (
    check_curvature_observations,
    check_factor,
    check_gradient_observations,
    check_learned,
    check_module_observations,
    check_penalty,
    solve_all,
)
from tersely.testing.random_state import untouched_random_state
from tersely.testing.training import (
    check_second_masks,
    compress,
    expect_same_masks,
    is_new_tensor,
    prepare,
    ranked_targets,
    ranking,
    train,
)
from tersely.testing.untouched import expect_own, expect_same_compiled, untouched_modules

_MODULES = ("conv", "grouped", "transposed", "linear")


@attrs.define(eq=False)
class PrunerContract(Contract):
    """What every pruner must meet; it is asked to rank weights.

    An algorithm is first given what it asks for: two batches of calibration if it observes
    modules, and some steps of a plain training loop if it learns or observes gradients.
    """

    kind: ClassVar[Kind] = "pruners"

    @property
    def info(self) -> PrunerInfo:
        """The pruner's descriptor."""
        return registry().pruners.info(self.name)

    def check_scores(self) -> None:
        """Scores are finite floats of the tensor's shape or of its blocks."""
        for dtype in DTYPES:
            for target, scores in self._scored(contract_net(dtype)):
                where = f"{target.name} in {dtype}"
                shape = tuple(target.tensor.shape)
                shapes = (shape, count_blocks(target.blocks.size, shape))
                expect(
                    tuple(scores.shape) in shapes,
                    f"{where}: scores have shape {tuple(scores.shape)}, expected one of {shapes}",
                )
                expect(scores.is_floating_point(), f"{where}: scores are {scores.dtype}")
                expect(bool(scores.isfinite().all()), f"{where}: scores are not all finite")

    def check_determinism(self) -> None:
        """The same weights give the same scores, from the same object and from a new one."""
        net = contract_net()
        first = self._scored(net)
        second = self._scored(contract_net())
        for (target, one), (_, other) in zip(first, second, strict=True):
            expect(torch.equal(one, other), f"{target.name}: two objects score differently")
            expect_own(one, other, f"{target.name}: scores")
        pruner = self.make()
        calls = [ranking(pruner, net, [target for target, _ in first]) for _ in range(2)]
        for target, _ in first:
            one, other = (_scores(call, target) for call in calls)
            expect(torch.equal(one, other), f"{target.name}: two calls score differently")
            is_new = not isinstance(pruner, MakesNewScores) or is_new_tensor(one, other, target)
            expect(is_new, f"{target.name}: new_scores is set, and its scores are kept elsewhere")

    def check_weights_untouched(self) -> None:
        """Scoring changes neither values nor versions of weights, nor modes, hooks and flags."""
        net = contract_net()
        targets = self._targets(net)
        before = {name: (value.clone(), value._version) for name, value in net.named_parameters()}
        with untouched_modules(net):
            self._score(targets, net)
        for name, value in net.named_parameters():
            expect(torch.equal(value, before[name][0]), f"{name} was changed")
            is_kept = value._version == before[name][1] or isinstance(self.make(), ScoresModel)
            expect(is_kept, f"{name} was written to")

    def check_rows_of_zeros(self) -> None:
        """A row of zeros, and a weight of nothing but zeros, get finite scores."""
        for target, scores in self._scored(net_with_zeros()):
            expect(bool(scores.isfinite().all()), f"{target.name}: scores are not all finite")
        session = prepare(net_with_zeros(), self._recipe())
        with as_findings():
            compress(session)

    def check_random_state(self) -> None:
        """Pruning leaves the global random state alone."""
        net = contract_net()
        with untouched_random_state():
            compress(prepare(net, self._recipe()))

    def check_observations(self) -> None:
        """What is observed of a batch or step adds up, and is observed without a change."""
        pruner, targets = self.make(), self._targets(contract_net())
        check_curvature_observations(pruner, targets)
        for target in targets:
            check_module_observations(pruner, target)
            check_gradient_observations(pruner, target)

    def check_learning(self) -> None:
        """What is learned, its penalty and the growth of sparsity have the values they may have."""
        pruner = self.make()
        targets = self._targets(contract_net())
        for target in targets:
            check_learned(pruner, target)
        check_penalty(pruner, targets)
        check_factor(pruner)

    def check_solving(self) -> None:
        """Solving leaves the weight as it is, and an order of inputs has each of them once."""
        session = prepare(contract_net(), self._recipe())
        before = {name: value._version for name, value in session.model.named_parameters()}
        solve_all(self.make(), ranked_targets(session))
        for name, value in session.model.named_parameters():
            expect(value._version == before[name], f"{name} was written to")

    def check_budgets(self) -> None:
        """Every ratio is met exactly on every granularity."""
        for granularity in granularity_values(self.info):
            check_granularity_budgets(self._recipe, granularity, _MODULES)

    def check_training(self) -> None:
        """Training goes on under the masks and leaves as much masked as before."""
        session = self._compressed()
        before = session.sparsity()
        train(session)
        expect(
            session.sparsity() == before,
            f"after some steps {session.sparsity()} is masked, before it was {before}",
        )

    def check_regrowing(self) -> None:
        """What regrows masks without gradients first, and after some steps just as much again."""
        check_second_masks(self.make(), attach(contract_net(), self._recipe()))

    def check_save_and_restore(self) -> None:
        """A saved session puts the same masks in force again."""
        session = self._compressed()
        other = self._restored(session)
        expect_same_masks(session, other)
        batch = contract_batches()[0]
        same = torch.equal(session.model(batch), other.model(batch))
        expect(same, "the restored model computes otherwise")

    def check_resume(self) -> None:
        """A session that was saved and restored in the middle of training goes on bit for bit."""
        session = prepare(contract_net(), self._recipe())
        other = self._restored(session)
        for one in (session, other):
            if session._engines.pruning.runs[0].is_trained:
                train(one)
            one.calibrate(contract_batches())
            compress(one)
        expect_same_masks(session, other)

    def check_saved_observations(self) -> None:
        """A session that was saved after it observed decides alike: no state outside of it."""
        session = prepare(contract_net(), self._recipe())
        (run,) = session._engines.pruning.runs
        if run.is_looking_again:  # it needs the batches themselves, which nothing saves
            return
        other = self._restored(session)
        for one in (session, other):
            compress(one)
        expect_same_masks(session, other)

    def check_deepcopy(self) -> None:
        """A deep copy of the pruned model computes the same."""
        net = self._compressed().model
        batch = contract_batches()[0]
        expect(torch.equal(copy.deepcopy(net)(batch), net(batch)), "the copy computes otherwise")

    def check_compile(self) -> None:
        """torch.compile captures the pruned model as one graph that computes the same."""
        net = self._compressed().model
        expect_same_compiled(net, contract_batches()[0])

    def check_finalize(self) -> None:
        """The finished model is plain and computes what the pruned one did."""
        session = self._compressed()
        batch = contract_batches()[0]
        expected = session.model(batch)
        finished = session.finalize()
        torch.testing.assert_close(finished(batch), expected)
        expect(has_own_classes(finished), "the finished model still carries instruments or buffers")

    def check_detach(self) -> None:
        """Detaching gives the dense model back, bit for bit."""
        session = prepare(contract_net(), self._recipe())
        before = {name: value.clone() for name, value in session.model.named_parameters()}
        compress(session)
        dense = session.detach()
        for name, value in dense.named_parameters():
            expect(torch.equal(value, before[name]), f"{name} did not come back")
        expect(has_own_classes(dense), "the detached model still carries instruments or buffers")

    def _recipe(
        self,
        granularity: Json = "default",
        ratio: float | None = 0.5,
        modules: Sequence[str] = _MODULES,
    ) -> dict[str, Json]:
        entry: dict[str, Json] = {"op_names": list(modules), "target_names": ["weight"]}
        entry |= {"sparse_ratio": ratio, "granularity": granularity}
        stage = {
            "algorithm": self.name,
            "options": dict(self.arguments),
            "config_list": [{key: value for key, value in entry.items() if value is not None}],
        }
        return {"pruning": stage}

    def _compressed(self) -> Session:
        session = prepare(contract_net(), self._recipe())
        compress(session)
        return session

    def _restored(self, session: Session) -> Session:
        with tempfile.TemporaryDirectory() as folder:
            session.save(folder)
            return load_session(with_weights_of(session.model), folder)

    def _targets(self, net: ContractNet) -> list[PruningTarget]:
        return ranked_targets(prepare(net, self._recipe()))

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
        PluginError: nobody provides the name.
    """
    require(PrunerContract(name, options or {}))
