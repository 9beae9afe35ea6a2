"""Parts of a model that are timed alone, and models that consist of one part."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

import attrs
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from tersely.planning.plan import Plan
from tersely.searching.recorded_calls import Call
from tersely.searching.units import Unit

Part = tuple[str, ...]
"""Names of modules that are timed together, none of them inside another."""


def parts_of(model: nn.Module, plan: Plan, units: Sequence[Unit]) -> tuple[Part, ...]:
    """Return the parts of a model that have weights, in the model's order.

    A part is a layer, a module that the plan names with everything in it, several modules that are
    quantized together, or a layer with the modules folded into it.

    Args:
        model: the model.
        plan: the plan of the whole recipe.
        units: what can be chosen.
    """
    named = {name for unit in units for name in unit.modules}
    folded = {name for names in _folded(plan) for name in names}
    roots: dict[str, str] = {}
    for name, module in model.named_modules():
        is_timed = name in folded or any(True for _ in module.parameters())
        if name and is_timed and (name in named or not [*module.children()]):
            roots[name] = _outermost(name, named)
    groups: dict[str, dict[str, None]] = {root: {root: None} for root in roots.values()}
    for together in _together(plan, units):
        found = [groups[roots[name]] for name in together if name in roots]
        if found:
            joined = dict.fromkeys(one for group in found for one in group)
            groups |= dict.fromkeys(joined, joined)
    return tuple(tuple(group) for group in {id(one): one for one in groups.values()}.values())


def _outermost(name: str, named: Collection[str]) -> str:
    pieces = name.split(".")
    above = (".".join(pieces[:count]) for count in range(1, len(pieces)))
    return next((one for one in above if one in named), name)


def _together(plan: Plan, units: Iterable[Unit]) -> Iterator[Sequence[str]]:
    for unit in units:
        if unit.method == "quantization":
            yield unit.modules
    yield from _folded(plan)


def _folded(plan: Plan) -> Iterator[Sequence[str]]:
    for stage in plan.recipe.stages:
        yield from stage.folded


@attrs.frozen
class Passed:
    """Stands in a call for the result of the previous module of a fold.

    Attributes:
        place: the index of that module's call in the part.
    """

    place: int


def with_folds(calls: Sequence[Call], plan: Plan) -> tuple[Call, ...]:
    """Return the calls of a part, with each module of a fold called with the previous one's result.

    A runtime folds such modules too, which it cannot do if each has an input of its own.

    Args:
        calls: the calls.
        plan: the plan of the whole recipe.
    """
    before = {two: one for names in _folded(plan) for one, two in itertools.pairwise(names)}
    names = [call.module for call in calls]
    found: list[Call] = []
    for call in calls:
        previous = before.get(call.module)
        is_once = names.count(call.module) == names.count(previous or "") == 1
        if previous is not None and is_once and previous in names[: len(found)]:
            args = (Passed(names.index(previous)), *call.args[1:])
            found.append(attrs.evolve(call, args=args))
        else:
            found.append(call)
    return tuple(found)


class Alone(nn.Module):
    """Copies of a part's modules under their names, called as in the whole model.

    Args:
        model: the whole model.
        calls: the calls of the part's modules, see `with_folds`.

    Attributes:
        alone_inputs: the tensors of the calls; `forward` takes as many.
    """

    def __init__(self, model: nn.Module, calls: Sequence[Call]) -> None:
        super().__init__()
        for name in dict.fromkeys(call.module for call in calls):
            *parents, last = name.split(".")
            holder: nn.Module = self
            for parent in parents:
                if parent not in holder._modules:
                    holder.add_module(parent, nn.Module())
                holder = holder.get_submodule(parent)
            holder.add_module(last, copy.deepcopy(model.get_submodule(name)))
        leaves, self._alone_form = tree_flatten([(call.args, call.kwargs) for call in calls])
        self._alone_leaves = [None if isinstance(one, Tensor) else one for one in leaves]
        self._alone_places = [n for n, one in enumerate(leaves) if isinstance(one, Tensor)]
        self._alone_names = [call.module for call in calls]
        self.alone_inputs = tuple(leaves[place] for place in self._alone_places)

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Make the calls and return every tensor that no later call takes.

        Args:
            *tensors: in the order of ``alone_inputs``.
        """
        leaves: list[Any] = list(self._alone_leaves)
        for place, tensor in zip(self._alone_places, tensors, strict=True):
            leaves[place] = tensor
        calls = tree_unflatten(leaves, self._alone_form)
        found: list[Any] = []
        for name, (args, kwargs) in zip(self._alone_names, calls, strict=True):
            given = (found[one.place] if isinstance(one, Passed) else one for one in args)
            found.append(self.get_submodule(name)(*given, **kwargs))
        passed = {one.place for args, _ in calls for one in args if isinstance(one, Passed)}
        kept = [one for place, one in enumerate(found) if place not in passed]
        return tuple(one for one in tree_leaves(kept) if isinstance(one, Tensor))
