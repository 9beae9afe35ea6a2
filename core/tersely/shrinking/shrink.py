"""Shrinking a plain module: find what can be removed, cut it, and prove it or restore it."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from functools import cache, partial
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from tersely.engine.state.cutting import Cut, FixedShapes
from tersely.errors import SessionError
from tersely.shrinking.absorbing import absorptions
from tersely.shrinking.cutting.apply import (
    Undoing,
    absorb,
    cut_tensors,
    follow_channels,
    follow_sizes,
    shape_tensors,
)
from tersely.shrinking.cutting.attentions import (
    attend_by_heads,
    fixed_attention,
    follow_heads,
    is_reached,
    masked_attention,
)
from tersely.shrinking.cutting.literals import count_failures, follow_literals
from tersely.shrinking.cutting.masked_weights import MaskedWeights, Used
from tersely.shrinking.graph.flow import Trace
from tersely.shrinking.graph.program import Program, named_tensors
from tersely.shrinking.graph.solution import Solution
from tersely.shrinking.graph.solve import cuts_of, solve
from tersely.shrinking.operators.walk import walk
from tersely.shrinking.proving.failing import Failure, failure_of_error, failure_of_mismatch
from tersely.shrinking.proving.predict import literals_of_sizes, sizes_in_modules
from tersely.shrinking.proving.proof import compare
from tersely.shrinking.proving.sizes import describe_elsewhere
from tersely.shrinking.proving.staying import staying_slices
from tersely.shrinking.report import Absorption, Stay
from tersely.shrinking.task import Task

_ATTEMPTS = 20


@attrs.frozen(eq=False)
class Shrinking:
    """The result of a cut.

    Attributes:
        cuts: parameter or buffer -> its cut.
        stays: the masked slices that could not be removed.
        absorbed: constants that biases took over.
        error: the largest relative difference between outputs of the masked and the small model.
        undoing: restores the model.
        other_in_training: readers for which something removed is zero in evaluation only.
        in_float64: whether the outputs were compared in double precision.
        at_other_sizes: whether they were also compared for inputs of other sizes than the
            example's.
        by_heads: the attention modules that compute with their remaining heads.
    """

    cuts: Mapping[str, Cut]
    stays: tuple[Stay, ...]
    absorbed: tuple[Absorption, ...]
    error: float
    undoing: Undoing = attrs.field(kw_only=True)
    other_in_training: tuple[str, ...] = attrs.field(default=(), kw_only=True)
    in_float64: bool = attrs.field(default=False, kw_only=True)
    at_other_sizes: bool = attrs.field(default=False, kw_only=True)
    by_heads: tuple[nn.Module, ...] = attrs.field(default=(), kw_only=True)


def shrink_module(
    model: nn.Module,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    kept: Mapping[str, Tensor],
    *,
    used: Used | None = None,
    round_to: int = 1,
    fixed: FixedShapes | None = None,
    approximate: bool = False,
) -> Shrinking:
    """Remove in place everything that masks leave without effect.

    Args:
        model: the model, without its masks in force.
        args: positional arguments of an example call.
        kwargs: keyword arguments of the call.
        kept: parameter -> its mask, bool, True = kept, the parameter's shape.
        used: how forward changes parameters besides masking them; not at all by default.
        round_to: the row and column counts of weights that lose some remain multiples of this.
        fixed: tensors that keep their shape -> the reason.
        approximate: whether to remove constants that no bias takes over exactly.

    Raises:
        SessionError: the model cannot be exported, or the small model's outputs differ; the model
            is unchanged.
    """
    tensors = named_tensors(model)
    names = {id(tensor): name for name, tensor in reversed(list(tensors.items()))}
    canonical = {names[id(tensors[name])]: mask for name, mask in kept.items()}
    used = Used() if used is None else used
    used = attrs.evolve(used, values={names[id(tensors[n])]: v for n, v in used.values.items()})
    task = Task(
        model,
        (args, kwargs),
        MaskedWeights(tensors, canonical, used),
        tensors=tensors,
        names=names,
        round_to=round_to,
        approximate=approximate,
    )
    tried = masked_attention(model, canonical)
    if tried:
        task.masked()  # while torch's own forward computes with all heads
    reasons: dict[str, str] = {}
    while True:
        attending = Undoing()
        try:
            for module in tried.values():
                attend_by_heads(module, attending)
            found = _shrunk(task, {**fixed_attention(model, reasons), **(fixed or {})})
        except BaseException:
            attending.undo()
            raise
        whole = {path for path in tried if not is_reached(path, found.cuts)}
        if not whole:
            return attrs.evolve(
                found, undoing=found.undoing.after(attending), by_heads=tuple(tried.values())
            )
        found.undoing.undo()
        attending.undo()
        if not found.cuts:
            return found
        # A module that loses nothing keeps torch's forward, and is not part of the proof.
        reasons |= {path: _first_reason(path, found.stays) for path in whole}
        tried = {path: module for path, module in tried.items() if path not in whole}


def _first_reason(path: str, stays: Sequence[Stay]) -> str:
    own = (stay.reason for stay in stays if is_reached(path, (stay.target,)))
    return next(own, "no head of it is masked whole")


def _shrunk(task: Task, fixed: FixedShapes) -> Shrinking:
    program = task.program(task.example, has_lines=True)
    elsewhere: tuple[Program, ...] = ()
    pinned: dict[int, str] = {}
    failures: dict[str, int] = {}
    for attempt in range(_ATTEMPTS):
        trace = walk(
            program, task.source, others=elsewhere, fixed=fixed, is_approximate=task.approximate
        )
        if attempt == _ATTEMPTS - 1:
            for label in range(1, trace.labels.count):
                pinned.setdefault(label, "the small model does not run as predicted")
        solution = solve(trace, round_to=task.round_to, pinned=pinned)
        cuts = cuts_of(solution)
        stays = staying_slices(trace, solution)
        if not cuts:
            return Shrinking({}, stays, (), 0.0, undoing=Undoing())
        task.masked(program)
        took = absorptions(program, task.source, trace, solution, others=elsewhere)
        found, written = _tried(task, (program, *elsewhere), trace, solution, failures)
        if isinstance(found, Small):
            return Shrinking(
                cuts,
                stays,
                took.absorbed,
                found.error,
                undoing=found.undoing,
                other_in_training=took.other_in_training,
                in_float64=task.masked().example.dtype is torch.float64,
                at_other_sizes=found.at_other_sizes,
            )
        # An attribute that was set may have the same value by coincidence.
        suspects = {path for path in written if _is_around(path, found.module)}
        if found.is_elsewhere and not elsewhere and task.elsewhere is not None:
            elsewhere = (task.program(task.elsewhere),)
        elif suspects:
            count_failures(failures, written, suspects)
        elif found.is_elsewhere:
            raise SessionError(describe_elsewhere(task.elsewhere))
        else:
            pinned.update(found.labels)
    raise SessionError("the small model does not run as predicted, so nothing was removed")


@attrs.frozen(eq=False)
class Small:
    """A small model that was proven.

    Attributes:
        error: the largest relative difference between outputs of the masked and the small model.
        undoing: restores the model.
        at_other_sizes: whether outputs for inputs of other sizes were compared, too.
    """

    error: float
    undoing: Undoing
    at_other_sizes: bool


def _tried(
    task: Task,
    programs: Sequence[Program],
    trace: Trace,
    solution: Solution,
    failures: Mapping[str, int],
) -> tuple[Small | Failure, Mapping[str, type[nn.Module]]]:
    """Cut the model and prove it, or restore it and return why it fails.

    Returns:
        Also the modules whose attributes were set, and their classes.
    """
    model, cuts, undoing, shapes = task.model, cuts_of(solution), Undoing(), Undoing()
    try:
        # Whether forward runs as predicted depends on shapes alone: no weight is copied for that.
        shape_tensors(task.tensors, cuts, shapes)
        literals = list(literals_of_sizes(trace, solution))
        sizes = cache(partial(sizes_in_modules, trace, solution))
        written = follow_literals(model, literals, undoing, failed=failures, sizes=sizes)
        follow_sizes(model, cuts, undoing)
        follow_channels(model, trace, solution, undoing)
        follow_heads(model, undoing)
        program, *elsewhere = programs
        found = _proved(task, program, trace, solution)
        shapes.undo()
        if isinstance(found, Program):
            totals = absorb(task.tensors, trace.absorbed, solution, undoing)
            cut_tensors(task.tensors, cuts, undoing)
            values = task.source.small(cuts, totals)
            error, other = task.error(values, found), task.error_elsewhere(values)
            if other <= task.masked().example.tolerance or task.approximate:
                is_compared = task.masked().elsewhere is not None
                compared = max(error, other)
                return Small(compared, undoing, at_other_sizes=is_compared), written
            if elsewhere and _is_proved_elsewhere(task, elsewhere[0], trace, solution):
                # Some outputs are undefined, such as rows of tokens that no expert takes.
                return Small(error, undoing, at_other_sizes=False), written
            found = Failure("", {}, is_elsewhere=True)
    except BaseException:
        shapes.undo()
        undoing.undo()
        raise
    undoing.undo()
    return found, written


def _is_around(first: str, second: str) -> bool:
    return f"{first}.".startswith(f"{second}.") or f"{second}.".startswith(f"{first}.")


def _proved(task: Task, program: Program, trace: Trace, solution: Solution) -> Program | Failure:
    """Return the program of the small model if it is proven, or else why it fails."""
    try:
        small = task.read(task.example)
    except Exception as error:
        return failure_of_error(task.model, error, trace, solution)
    mismatch = compare(trace, solution, program, small)
    return small if mismatch is None else failure_of_mismatch(trace, solution, mismatch)


def _is_proved_elsewhere(task: Task, program: Program, trace: Trace, solution: Solution) -> bool:
    """Tell whether the small model runs the predicted operators for inputs of other sizes."""
    seen = copy.copy(trace)
    seen.flows = trace.elsewhere
    try:
        small = task.read(task.elsewhere or task.example)
    except Exception:  # the forward is the user's
        return False
    return compare(seen, solution, program, small) is None
