"""Finding what can take the factors of some inputs: the module that makes that input alone."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Sequence
from typing import TypeAlias

import attrs
from torch import nn

from tersely.engine.context import Context
from tersely.engine.processes import failing_together, gather
from tersely.engine.targets.binding import Binding, BoundTarget
from tersely.instrument.modules.classes import is_sharded
from tersely.quantization.factors.candidates import (
    among_experts,
    before_them,
    kind_of,
    may_repeat,
    sizes_of_heads,
)
from tersely.quantization.factors.input_factors import has_own_factors
from tersely.quantization.factors.output_forms import OutputForm
from tersely.quantization.factors.output_rows import OutputRows
from tersely.quantization.factors.recording import Record
from tersely.quantization.factors.trials import NOT_ALONE, ZERO, Candidate, Trials

NOTHING_MAKES_IT = "no module with as many outputs comes before them"
_NO_BATCH = "there are no calibration batches to find out what produces it"

_OF_ONE_EXPERT = "each expert has its own factors, and no rows of its matrices produce the input"

_FEW = 8
"""The most candidates of one kind that are tried one by one after the first one failed."""


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

    def title(self, channels: int) -> str:
        """Return what takes the factors, in words.

        Args:
            channels: how many input channels the weights have that read it.
        """
        found = f"{self.name}.{self.form.weight}" if self.form.is_of_experts else self.name
        rows = self.form.rows
        is_partial = rows is not None and rows.is_partial(channels)
        return f"rows of {found}" if is_partial else found


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
    with failing_together(context.model):
        accepted, reasons = _tried(groups, context, bound_targets, fused=fused)
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
            reason = reasons.get(group, "not all processes found what produces it")
            found.update((bound, reason) for bound in group)
    return found


def find_ties(
    groups: Sequence[Group], context: Context, bound_targets: Sequence[BoundTarget]
) -> dict[BoundTarget, OutputRows]:
    """Return which weights read some outputs several times, so that their factors have to be equal.

    Heads of grouped-query attention do so. It is asked before there are factors.

    Args:
        groups: weights that will have factors.
        context: what a session's engines share; the model is left as it was.
        bound_targets: all quantization targets.
    """
    modules = context.binding.owners.universe.modules
    waiting = [group for group in groups if may_repeat(modules, group[0])]
    sharded = any(is_sharded(one) for one in context.model.parameters())
    if not waiting or context.batches is None or sharded:
        return {}
    with failing_together(context.model):
        accepted, _ = _tried(waiting, context, bound_targets, is_tying=True)
    own = {bound.plan.name: one.form.rows for one in accepted for bound in one.targets}
    everyone = gather(own)
    return {
        bound: rows
        for group in waiting
        for bound in group
        if (rows := own.get(bound.plan.name)) is not None
        and all(process.get(bound.plan.name) == rows for process in everyone)
    }


def _tried(
    groups: Sequence[Group],
    context: Context,
    bound_targets: Sequence[BoundTarget],
    *,
    fused: Collection[nn.Module] = (),
    is_tying: bool = False,
) -> tuple[list[Candidate], dict[Group, str]]:
    assert context.batches is not None  # the callers have checked
    plain = [group for group in groups if not has_own_factors(group[0])]
    readers = {bound.module: bound for group in plain for bound in group}
    firsts = {bound.module: group[0] for group in plain for bound in group}
    trials = Trials(context.model, context.batches, readers, firsts, bound_targets)

    def sift(trials: Trials, *, is_sample: bool) -> tuple[list[Candidate], dict[Group, str]]:
        accepted, reasons = _sifted(
            groups, trials, context.binding, fused=fused, is_tying=is_tying, is_sample=is_sample
        )
        failures = trials.later_problems(accepted)
        if is_sample and ZERO in failures.values():
            raise _TooLittle
        kept = [one for one in accepted if one not in failures]
        return kept, reasons | {one.targets: reason for one, reason in failures.items()}

    # What fails on a sample fails on the batch; what passes is tried on the batch, all at once.
    sample = trials.of_one_sample()
    if sample is not None:
        with contextlib.suppress(_TooLittle):
            accepted, reasons = sift(sample, is_sample=True)
            if not accepted or trials.problem(accepted, trials.reference()) is None:
                return accepted, reasons
    return sift(trials, is_sample=False)


class _TooLittle(Exception):  # noqa: N818  # control flow, not an error
    """A sample is zero where the batch may not be, or does not reach what the batch may reach."""


def _sifted(
    groups: Sequence[Group],
    trials: Trials,
    binding: Binding,
    *,
    fused: Collection[nn.Module],
    is_tying: bool,
    is_sample: bool,
) -> tuple[list[Candidate], dict[Group, str]]:
    reference = trials.reference()
    if trials.reference() != reference:
        return [], dict.fromkeys(groups, "the model computes different outputs in every call")
    if is_sample and not trials.readers.keys() <= set(reference.order):
        raise _TooLittle

    def problem(candidates: Sequence[Candidate]) -> str | None:
        found = trials.problem(candidates, reference)
        if is_sample and found == ZERO:
            raise _TooLittle
        return found

    heads = sizes_of_heads(binding.owners.universe.modules)
    searches = [_search(group, reference, heads, is_tying=is_tying) for group in groups]
    accepted: list[Candidate] = []
    while waiting := [one for one in searches if one.candidates]:
        round_of, taken = {}, {candidate.module for candidate in accepted}
        for search in waiting:
            first = search.candidates[0]
            if first.module in fused:
                search.fail("a module that fuse_names folds produces it")
            elif first.module not in taken:
                taken.add(first.module)
                round_of[first] = search
            elif any(first.module is one.module for one in accepted):
                search.fail(NOT_ALONE)
        kinds: dict[object, list[Candidate]] = {}
        for candidate in round_of:
            kinds.setdefault(kind_of(candidate, binding), []).append(candidate)
        for alike in kinds.values():
            failed = _Failures(problem)
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
            candidates: of one kind; where there are many, or some outputs alone are guessed to be
                their inputs, only the first one is tried if that fails.
        """
        is_guess = candidates[0].form.rows is not None and len(candidates) > 1
        if is_guess and not self.sift(candidates[:1]):
            return []
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


def _search(group: Group, reference: Record, heads: Collection[int], *, is_tying: bool) -> _Search:
    if any(bound.others for bound in group):
        return _Search(group, [], "they are tied to other weights")
    if has_own_factors(group[0]):
        return _Search(group, list(among_experts(group[0])), _OF_ONE_EXPERT)
    return _Search(group, list(before_them(group, reference, heads, is_tying=is_tying)))
