"""Shrinking a plain module: find what can go, cut it in place, prove it, or put it back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache, partial
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from tersely.engine.cutting import Cut, FixedShapes
from tersely.errors import SessionError
from tersely.shrinking.absorbing import absorptions
from tersely.shrinking.cutting.apply import (
    Undoing,
    absorb,
    cut_tensors,
    follow_channels,
    follow_sizes,
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
from tersely.shrinking.graph.program import (
    Program,
    named_tensors,
    read_program,
)
from tersely.shrinking.graph.solution import Solution
from tersely.shrinking.graph.solve import cuts_of, solve
from tersely.shrinking.operators.walk import walk
from tersely.shrinking.proving.failing import Failure, failure_of_error, failure_of_mismatch
from tersely.shrinking.proving.inputs import Inputs, compared_inputs
from tersely.shrinking.proving.outputs import (
    Outputs,
    Way,
    count_other_differences,
    describe_difference,
    largest_difference,
    outputs_of,
)
from tersely.shrinking.proving.predict import literals_of_sizes, sizes_in_modules
from tersely.shrinking.proving.proof import compare
from tersely.shrinking.proving.staying import staying_slices
from tersely.shrinking.report import Absorption, Stay

_ATTEMPTS = 20


@attrs.frozen(eq=False)
class Shrinking:
    """What was cut.

    Attributes:
        cuts: parameter or buffer -> its cut.
        stays: what could not be removed.
        absorbed: constants that biases took over.
        error: largest relative difference of outputs, masked against small.
        in_float64: whether the outputs were compared in double precision.
        undoing: puts the model back.
        by_heads: the attention modules that compute with as many heads as they have now.
    """

    cuts: Mapping[str, Cut]
    stays: tuple[Stay, ...]
    absorbed: tuple[Absorption, ...]
    error: float
    in_float64: bool
    undoing: Undoing
    by_heads: tuple[nn.Module, ...] = ()


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
    """Remove in place what masks leave without effect.

    Args:
        model: the model, without its masks in force.
        args: positional arguments of an example call.
        kwargs: keyword arguments of the call.
        kept: parameter -> what its mask keeps, bool, the parameter's shape.
        used: what forward makes of parameters besides masking them; by default nothing.
        round_to: row and column counts of weights that lose some stay multiples of it.
        fixed: what keeps its shape, and why.
        approximate: whether to remove constants that no bias takes over exactly.

    Raises:
        SessionError: the model cannot be exported, or the small model's outputs differ; the model
            is as it was.
    """
    tensors = named_tensors(model)
    names = {id(tensor): name for name, tensor in reversed(list(tensors.items()))}
    canonical = {names[id(tensors[name])]: mask for name, mask in kept.items()}
    used = Used() if used is None else used
    used = attrs.evolve(used, values={names[id(tensors[n])]: v for n, v in used.values.items()})
    task = _Task(
        model,
        compared_inputs((args, kwargs)),
        MaskedWeights(tensors, canonical, used),
        tensors=tensors,
        names=names,
        round_to=round_to,
        approximate=approximate,
    )
    tried = masked_attention(model, canonical)
    if tried:
        task.masked_outputs()  # while torch's own forward computes with all heads
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
        # A module that loses nothing keeps torch's forward, and is no part of what is proven.
        reasons |= {path: _first_reason(path, found.stays) for path in whole}
        tried = {path: module for path, module in tried.items() if path not in whole}


def _first_reason(path: str, stays: Sequence[Stay]) -> str:
    own = (stay.reason for stay in stays if is_reached(path, (stay.target,)))
    return next(own, "no head of it is masked whole")


@attrs.frozen(eq=False)
class _Task:
    """What is shrunk, and what is asked for.

    Attributes:
        model: the model.
        inputs: arguments and keyword arguments of calls whose outputs are compared.
        source: values of its parameters as masks leave them.
        tensors: its parameters and buffers, by every name.
        names: identity of a parameter or buffer -> its first name.
        round_to: row and column counts of weights that lose some stay multiples.
        approximate: whether constants go that no bias takes over exactly.
    """

    model: nn.Module
    inputs: tuple[Inputs, ...]
    source: MaskedWeights
    tensors: Mapping[str, Tensor] = attrs.field(kw_only=True)
    names: Mapping[int, str] = attrs.field(kw_only=True)
    round_to: int = attrs.field(kw_only=True)
    approximate: bool = attrs.field(kw_only=True)
    _masked: list[Outputs] = attrs.field(factory=list, init=False)

    def masked_outputs(self, program: Program | None = None) -> Outputs:
        """Return what the masked model returns, computed once; with its program, or read anew."""
        if not self._masked:
            self._masked.append(self.outputs(self.source.masked(), program))
        return self._masked[0]

    def outputs(
        self, values: Mapping[str, Tensor], program: Program | None, *, way: Way | None = None
    ) -> Outputs:
        """Return what the model as it is now returns with other values of parameters."""
        read = self.program if program is None else lambda: program
        return outputs_of(self.model, values, self.inputs, read, way=way)

    def program(self) -> Program:
        """Return the operators of the model as it is now."""
        return self.named(_exported(self.model, *self.inputs[0]))

    def named(self, program: Program) -> Program:
        """Return a program that knows each parameter by its first name."""
        parameters = {
            node: self.names[id(self.tensors[name])] for node, name in program.parameters.items()
        }
        written = {
            node: self.names[id(self.tensors[name])] for node, name in program.written.items()
        }
        return attrs.evolve(program, parameters=parameters, written=written)


def _shrunk(task: _Task, fixed: FixedShapes) -> Shrinking:
    model, source, tensors = task.model, task.source, task.tensors
    program = task.program()
    pinned: dict[int, str] = {}
    failures: dict[str, int] = {}
    for attempt in range(_ATTEMPTS):
        trace = walk(program, source, fixed=fixed, is_approximate=task.approximate)
        if attempt == _ATTEMPTS - 1:
            for label in range(1, trace.labels.count):
                pinned.setdefault(label, "the small model does not run as predicted")
        solution = solve(trace, round_to=task.round_to, pinned=pinned)
        cuts = cuts_of(solution)
        stays = staying_slices(trace, solution)
        undoing = Undoing()
        if not cuts:
            return Shrinking({}, stays, (), 0.0, False, undoing)
        before = task.masked_outputs(program)
        took = absorptions(program, source, trace, solution)
        try:
            totals = absorb(tensors, trace.absorbed, solution, undoing)
            cut_tensors(tensors, cuts, undoing)
            literals = list(literals_of_sizes(trace, solution))
            sizes = cache(partial(sizes_in_modules, trace, solution))
            written = follow_literals(model, literals, undoing, failed=failures, sizes=sizes)
            follow_sizes(model, cuts, undoing)
            follow_channels(model, trace, solution, undoing)
            follow_heads(model, undoing)
            proven = _proved(task, program, trace, solution)
            if isinstance(proven, Program):
                after = task.outputs(source.small(cuts, totals), proven, way=before.way)
                error = largest_difference(before.tensors, after.tensors)
                others = count_other_differences(before, after)
                if (error <= before.tolerance and not others) or task.approximate:
                    in_float64 = before.dtype is torch.float64
                    return Shrinking(cuts, stays, took, error, in_float64, undoing)
                raise SessionError(describe_difference(error, before.tolerance, others))
        except BaseException:
            undoing.undo()
            raise
        undoing.undo()
        # An attribute that was written may be a number of the same value that means something else.
        suspects = {path for path in written if _is_around(path, proven.module)}
        count_failures(failures, written, suspects)
        if not suspects:
            pinned.update(proven.labels)
    raise SessionError("the small model does not run as predicted, so nothing was removed")


def _is_around(first: str, second: str) -> bool:
    return f"{first}.".startswith(f"{second}.") or f"{second}.".startswith(f"{first}.")


def _exported(model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Program:
    try:
        return read_program(model, args, kwargs, has_lines=True)
    except Exception as error:
        text = str(error).strip().splitlines()
        raise SessionError(
            "shrink() cannot follow the model's forward: torch.export says "
            f"{text[0] if text else type(error).__name__!r}; give example_inputs that the model "
            "runs with, take branches that depend on values out of forward, and "
            "leave caches out (use_cache=False in transformers)"
        ) from error


def _proved(task: _Task, program: Program, trace: Trace, solution: Solution) -> Program | Failure:
    """Return the program of the small model when it is proven, or else why it fails."""
    try:
        small = task.named(read_program(task.model, *task.inputs[0]))
    except Exception as error:
        return failure_of_error(task.model, error, trace, solution)
    mismatch = compare(trace, solution, program, small)
    return small if mismatch is None else failure_of_mismatch(trace, solution, mismatch)
