"""The contract of pruners."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import ClassVar

import attrs
import torch
from torch import Tensor

from laconic.algorithms import Pruner, PruningTarget
from laconic.blocks import count_blocks
from laconic.errors import LaconicError, PlanError
from laconic.planning.plan import Plan
from laconic.planning.resolve import plan as make_plan
from laconic.registry.descriptors import Json, PrunerInfo
from laconic.registry.registry import registry
from laconic.session.opening import attach, load_session
from laconic.session.session import Session
from laconic.testing.contract import Contract, ContractError, Kind, expect, require
from laconic.testing.models import (
    DTYPES,
    ContractNet,
    contract_batches,
    contract_net,
    granularity_values,
)

_RATIOS = (0, 0.29, 0.5, 1)
_MODULES = ("conv", "grouped", "transposed", "linear")


@attrs.define(eq=False)
class PrunerContract(Contract):
    """What every pruner must meet; it is asked to rank weights."""

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
                shapes = (tuple(target.tensor.shape), self._counts(target))
                expect(
                    tuple(scores.shape) in shapes,
                    f"{where}: scores have shape {tuple(scores.shape)}, expected one of {shapes}",
                )
                expect(scores.is_floating_point(), f"{where}: scores are {scores.dtype}")
                expect(bool(scores.isfinite().all()), f"{where}: scores are not all finite")

    def check_determinism(self) -> None:
        """The same weights give the same scores, from the same object and from a new one."""
        first = self._scored(contract_net())
        second = self._scored(contract_net())
        for (target, one), (_, other) in zip(first, second, strict=True):
            expect(torch.equal(one, other), f"{target.name}: two objects score differently")
        pruner: Pruner = self.make()
        for target, _ in first:
            same = torch.equal(_scores(pruner, target), _scores(pruner, target))
            expect(same, f"{target.name}: two calls score differently")

    def check_weights_untouched(self) -> None:
        """Scoring changes neither values, versions nor requires_grad of the weights."""
        net = contract_net()
        before = {name: (value.clone(), value._version) for name, value in net.named_parameters()}
        self._scored(net)
        for name, value in net.named_parameters():
            expect(torch.equal(value, before[name][0]), f"{name} was changed")
            expect(value._version == before[name][1], f"{name} was written to")
            expect(value.requires_grad, f"requires_grad of {name} was switched off")

    def check_budgets(self) -> None:
        """Every ratio is met exactly on every granularity."""
        for granularity in granularity_values(self.info):
            modules = self._divided(granularity)
            expect(
                bool(modules) or granularity != "default",
                "the default granularity divides none of the weights that were tried",
            )
            is_fixed = False
            for ratio in _RATIOS:
                if modules and not is_fixed:
                    is_fixed = self._check_budget(granularity, ratio, modules)

    def check_save_and_restore(self) -> None:
        """A saved session puts the same masks in force again."""
        session = self._compressed()
        with tempfile.TemporaryDirectory() as folder:
            session.save(folder)
            other = load_session(contract_net(), folder)
        for module, targets in session.masks().items():
            for target, mask in targets.items():
                expect(
                    torch.equal(mask, other.masks()[module][target]),
                    f"{module}.{target}: the restored mask differs",
                )

    def check_deepcopy(self) -> None:
        """A deep copy of the pruned model computes the same."""
        net = self._compressed().model
        batch = contract_batches()[0]
        expect(torch.equal(copy.deepcopy(net)(batch), net(batch)), "the copy computes otherwise")

    def check_compile(self) -> None:
        """torch.compile captures the pruned model as one graph that computes the same."""
        net = self._compressed().model
        batch = contract_batches()[0]
        torch.compiler.reset()
        compiled = torch.compile(net, fullgraph=True, backend="eager")
        torch.testing.assert_close(compiled(batch), net(batch))

    def check_finalize(self) -> None:
        """The finished model is plain and computes what the pruned one did."""
        session = self._compressed()
        batch = contract_batches()[0]
        expected = session.model(batch)
        finished = session.finalize()
        torch.testing.assert_close(finished(batch), expected)
        expect(type(getattr(finished, "linear")) is torch.nn.Linear, "linear is not plain")  # noqa: B009  # the model is typed as nn.Module

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
            "options": dict(self.options),
            "config_list": [{key: value for key, value in entry.items() if value is not None}],
        }
        return {"pruning": stage}

    def _divided(self, granularity: Json) -> list[str]:
        found = []
        for module in _MODULES:
            try:
                make_plan(contract_net(), self._recipe(granularity, None, [module]))
            except PlanError:
                continue  # this granularity does not divide this weight
            found.append(module)
        return found

    def _compressed(self) -> Session:
        session = attach(contract_net(), self._recipe())
        session.calibrate(contract_batches())
        session.compress()
        return session

    def _scored(self, net: ContractNet) -> list[tuple[PruningTarget, Tensor]]:
        pruner: Pruner = self.make()
        targets = [
            PruningTarget(
                plan=planned,
                tensor=net.get_submodule(planned.module).weight.detach(),  # type: ignore[operator]  # a Parameter
                blocks=planned.blocks,  # type: ignore[arg-type]  # ranked parameters have blocks
                module=net.get_submodule(planned.module),
            )
            for planned in make_plan(net, self._recipe())
        ]
        return [(target, _scores(pruner, target)) for target in targets]

    @staticmethod
    def _counts(target: PruningTarget) -> tuple[int, ...]:
        return count_blocks(target.blocks.size, tuple(target.tensor.shape))

    def _check_budget(self, granularity: Json, ratio: float, modules: Sequence[str]) -> bool:
        # Returns whether the granularity fixes how many blocks stay, whatever the ratio.
        where = f"granularity {granularity!r}, ratio {ratio}"
        planned = make_plan(contract_net(), self._recipe(granularity, None, modules))
        is_fixed = any(target.blocks and target.blocks.keep is not None for target in planned)
        recipe = self._recipe(granularity, None if is_fixed else ratio, modules)
        try:
            session = attach(contract_net(), recipe)
            session.calibrate(contract_batches())
            session.compress()
        except LaconicError as error:
            raise ContractError(f"{where}: {error}") from error
        expected = self._expected(planned, ratio)
        for module, targets in session.masks().items():
            masked = int((~targets["weight"]).sum())
            expect(
                masked == expected[module],
                f"{module}.weight, {where}: {masked} elements masked, the budget is "
                f"{expected[module]}",
            )
        return is_fixed

    @staticmethod
    def _expected(planned: Plan, ratio: float) -> dict[str, int]:
        found = {}
        for target in planned:
            blocks, shape = target.blocks, target.shape
            if blocks is None or shape is None:
                continue
            total = torch.Size(count_blocks(blocks.size, shape)).numel()
            scopes = (
                1 if blocks.scope is None else torch.Size(count_blocks(blocks.scope, shape)).numel()
            )
            per_scope = total // scopes
            if blocks.keep is not None:
                masked = per_scope - blocks.keep
            else:
                masked = int(Fraction(str(ratio)) * per_scope)
            found[target.module] = masked * scopes * (torch.Size(shape).numel() // total)
        return found


def _scores(pruner: Pruner, target: PruningTarget) -> Tensor:
    scores = pruner.importance(target)
    is_tensor = isinstance(scores, Tensor)
    expect(is_tensor, f"{target.name}: expected a tensor of scores, got {type(scores).__name__}")
    return scores


def check_pruner(name: str, *, options: Mapping[str, Json] | None = None) -> None:
    """Run the whole contract of a pruner.

    Args:
        name: its name in the registry.
        options: options to make it with.

    Raises:
        ContractError: lists every check that failed.
        PluginError: nobody provides the name.
    """
    require(PrunerContract(name, options or {}))
