"""Finding what can take the factors of some inputs: the module that makes that input alone."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import TypeAlias

import attrs
from torch import nn

from tersely.engine.binding import Binding, BoundTarget
from tersely.engine.context import Context
from tersely.engine.processes import failing_together, gather
from tersely.errors import SessionFileError
from tersely.instrument.modules.classes import is_sharded
from tersely.json_value import Json
from tersely.quantization.output_forms import OutputForm, forms_of
from tersely.quantization.scale_buffers import read_buffer
from tersely.quantization.trials import NOT_ALONE, Candidate, Record, Trials

NOTHING_MAKES_IT = "no module with as many outputs comes before them"
_NO_BATCH = "there are no calibration batches to find out by what makes it"

_OF_ONE_EXPERT = "each expert has factors of its own, and one module makes the input of all"

_NEAREST = 3
"""How many modules before a weight are tried, of those with as many outputs as it has inputs."""

_FEW = 8
"""Up to how many candidates of one kind are tried one by one after the first one failed."""


@attrs.frozen(eq=False)
class Producer:
    """What makes the input of some weights, and nothing else.

    Attributes:
        module: the module.
        name: its name.
        form: how its output channels are multiplied.
    """

    module: nn.Module
    name: str
    form: OutputForm


Found: TypeAlias = "dict[BoundTarget, Producer | str]"
"""Weight with factors -> what can take them, or why nothing can."""

Group: TypeAlias = tuple[BoundTarget, ...]
"""Weights that read one and the same input and share their factors."""


@attrs.define(eq=False)
class _Search:
    """The candidates of one group that are still to be tried; mutable, because they become fewer.

    Attributes:
        group: the weights.
        candidates: the nearest first.
        reason: why the one that came nearest failed.
    """

    group: Group
    candidates: list[Candidate]
    reason: str = NOTHING_MAKES_IT

    def fail(self, reason: str) -> None:
        """Go on to the next candidate.

        Args:
            reason: why the first one does not fit.
        """
        self.candidates.pop(0)
        if self.reason in (NOTHING_MAKES_IT, NOT_ALONE):
            self.reason = reason


def find_producers(
    groups: Sequence[Group],
    context: Context,
    bound_targets: Sequence[BoundTarget],
    *,
    fused: Collection[nn.Module] = (),
) -> Found:
    """Return what can take the factors of each group of weights, by trials on a batch.

    Args:
        groups: weights that have factors.
        context: what a session's engines share; the model is left as it was.
        bound_targets: all quantization targets.
        fused: modules that are folded into another, or take one.
    """
    if not groups:
        return {}
    found: Found = {bound: reason for group in groups for bound in group for reason in [_NO_BATCH]}
    if context.batches is None:
        return found
    if any(is_sharded(one) for one in context.model.parameters()):
        return dict.fromkeys(found, "parameters are sharded")
    stacks = [group for group in groups if group[0].plan.has_experts]
    found |= {bound: _OF_ONE_EXPERT for group in stacks for bound in group}
    groups = [group for group in groups if group not in stacks]
    readers = {bound.module: bound for group in groups for bound in group}
    trials = Trials(context.model, context.batches, readers, bound_targets)
    with failing_together(context.model):
        accepted, reasons = _tried(groups, trials, context.binding, fused=fused)
    name_of = context.binding.name_of
    own = {
        tuple(one.plan.name for one in candidate.targets): (name_of(candidate.module), candidate)
        for candidate in accepted
    }
    everyone = gather([(names, name) for names, (name, _) in own.items()])
    for group in groups:
        names = tuple(bound.plan.name for bound in group)
        name, candidate = own.get(names, ("", None))
        if candidate is not None and all((names, name) in process for process in everyone):
            producer = Producer(candidate.module, name, candidate.form)
            found.update((bound, producer) for bound in group)
        else:
            reason = reasons.get(group, "not all processes found what makes it")
            found.update((bound, reason) for bound in group)
    return found


def describe_producers(found: Found) -> dict[str, Json]:
    """Return what a saved session keeps of them.

    Args:
        found: what can take the factors of each weight.
    """
    return {
        bound.plan.name: one
        if isinstance(one, str)
        else {"module": one.name, "dim": one.form.dim, "is_offset": one.form.is_offset}
        for bound, one in found.items()
    }


def rebuilt_producers(
    saved: Mapping[str, Json], bound_targets: Sequence[BoundTarget], binding: Binding
) -> Found:
    """Return what can take factors as it was saved.

    Args:
        saved: what `describe_producers` returned.
        bound_targets: all quantization targets.
        binding: the plan, bound to the model.

    Raises:
        SessionFileError: the model has no such module.
    """
    universe = binding.owners.universe
    by_name = {bound.plan.name: bound for bound in bound_targets}
    found: Found = {}
    for name, one in saved.items():
        bound = by_name.get(name)
        if bound is None:
            raise SessionFileError(
                f"the saved session has factors of {name!r}, which is no target of this session; "
                f"load it with the recipe and the model that it was saved with",
                target=name,
            )
        if isinstance(one, str):
            found[bound] = one
            continue
        if one["module"] not in universe.index:
            raise SessionFileError(
                f"the saved session folds factors of {name!r} into {one['module']!r}, which the "
                f"model has not; load it with the model that it was saved with",
                target=name,
            )
        module = universe.modules[universe.index[one["module"]]]
        form = OutputForm(int(one["dim"]), is_offset=bool(one["is_offset"]))
        found[bound] = Producer(module, str(one["module"]), form)
    return found


def _tried(
    groups: Sequence[Group], trials: Trials, binding: Binding, *, fused: Collection[nn.Module]
) -> tuple[list[Candidate], dict[Group, str]]:
    reference = trials.reference()
    if trials.reference() != reference:
        return [], dict.fromkeys(groups, "the model computes something else in every call")
    searches = [_search(group, reference) for group in groups]
    accepted: list[Candidate] = []
    while waiting := [one for one in searches if one.candidates]:
        round_of, taken = {}, {candidate.module for candidate in accepted}
        for search in waiting:
            first = search.candidates[0]
            if first.module in fused:
                search.fail("a module that fuse_names folds makes it")
            elif first.module not in taken:
                taken.add(first.module)
                round_of[first] = search
            elif any(first.module is one.module for one in accepted):
                search.fail(NOT_ALONE)
        kinds: dict[object, list[Candidate]] = {}
        for candidate in round_of:
            kinds.setdefault(_kind_of(candidate, binding), []).append(candidate)
        for alike in kinds.values():
            failed = _Failures(lambda some: trials.problem(some, reference))
            passed = failed.sift(alike)
            accepted += passed
            for candidate in alike:
                search = round_of[candidate]
                if candidate in passed:
                    search.candidates.clear()
                else:
                    search.fail(failed.reason)
    taken_by = {id(one) for candidate in accepted for one in candidate.targets}
    reasons = {one.group: one.reason for one in searches if id(one.group[0]) not in taken_by}
    return accepted, reasons


@attrs.define(eq=False)
class _Failures:
    """Separates candidates that pass from those that fail; mutable, to keep the last reason.

    Attributes:
        problem: says why some candidates fail, all together, or None.
        reason: what it said last of one alone.
    """

    problem: Callable[[Sequence[Candidate]], str | None]
    reason: str = ""

    def sift(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Return the candidates that pass.

        Args:
            candidates: of one kind; where there are many, only the first one is tried.
        """
        reason = self.problem(candidates)
        if reason is None:
            return list(candidates)
        if len(candidates) == 1:
            self.reason = reason
            return []
        if len(candidates) > _FEW and not self.sift(candidates[:1]):
            return []
        half = len(candidates) // 2
        return [*self.sift(candidates[:half]), *self.sift(candidates[half:])]


def _search(group: Group, reference: Record) -> _Search:
    if any(bound.others for bound in group):
        return _Search(group, [], "they are tied to other weights")
    return _Search(group, list(_candidates(group, reference)))


def _candidates(group: Group, reference: Record) -> Iterator[Candidate]:
    factors = read_buffer(group[0], "input_scale")
    modules = {bound.module for bound in group}
    first = next((i for i, one in enumerate(reference.order) if one in modules), None)
    if factors is None or first is None:
        return
    count = 0
    for module in dict.fromkeys(reversed(reference.order[:first])):
        forms = forms_of(module, factors.numel())
        if forms:
            count += 1
            yield from (Candidate(group, module, form) for form in forms)
        if count == _NEAREST:
            return


def _kind_of(candidate: Candidate, binding: Binding) -> object:
    names = [binding.name_of(candidate.module), *(one.plan.name for one in candidate.targets)]
    paths = [tuple("#" if part.isdecimal() else part for part in name.split(".")) for name in names]
    numbers = [[int(part) for part in name.split(".") if part.isdecimal()] for name in names]
    ahead = tuple(one - other for one, other in zip(numbers[0], numbers[1], strict=False))
    return (type(candidate.module), candidate.form, tuple(paths), ahead)
