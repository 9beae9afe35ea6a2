"""Shrinking a plain module: find what can go, cut it in place, prove it, or put it back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from tersely.engine.cutting import Cut, FixedShapes
from tersely.errors import SessionError
from tersely.shrinking.cutting.apply import (
    Undoing,
    absorb,
    cut_tensors,
    follow_literals,
    follow_sizes,
)
from tersely.shrinking.cutting.masked_weights import MaskedWeights
from tersely.shrinking.graph.flow import Trace
from tersely.shrinking.graph.program import Program, operator_name, read_program
from tersely.shrinking.graph.solve import Solution, cuts_of, slices_lost, solve
from tersely.shrinking.operators.attending import packed_attention
from tersely.shrinking.operators.walk import walk
from tersely.shrinking.proving.failing import Failure, failure_of_error, failure_of_mismatch
from tersely.shrinking.proving.outputs import (
    Inputs,
    has_memory_for_copy,
    largest_difference,
    outputs_as_it_is,
    outputs_in_float64,
    random_inputs,
)
from tersely.shrinking.proving.predict import literals_of_sizes
from tersely.shrinking.proving.proof import compare
from tersely.shrinking.report import Absorption, Stay, hint_for

_ATTEMPTS = 12
_FLOAT64_TOLERANCE = 1e-9
_OWN_TOLERANCE = 2e-3


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
    """

    cuts: Mapping[str, Cut]
    stays: tuple[Stay, ...]
    absorbed: tuple[Absorption, ...]
    error: float
    in_float64: bool
    undoing: Undoing


def shrink_module(
    model: nn.Module,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    kept: Mapping[str, Tensor],
    *,
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
    source = MaskedWeights(tensors, canonical)
    program = _exported(model, args, kwargs)
    program = attrs.evolve(
        program,
        parameters={node: names[id(tensors[name])] for node, name in program.parameters.items()},
    )
    fixed = {**packed_attention(model), **(fixed or {})}
    inputs = [(args, kwargs), random_inputs((args, kwargs), seed=0)]
    pinned: dict[int, str] = {}
    skipped: set[str] = set()
    before: list[list[Tensor]] = []
    in_float64 = False
    for attempt in range(_ATTEMPTS):
        trace = walk(program, source, fixed=fixed, is_approximate=approximate)
        if attempt == _ATTEMPTS - 1:
            for label in range(1, trace.labels.count):
                pinned.setdefault(label, "the small model does not run as predicted")
        solution = solve(trace, round_to=round_to, pinned=pinned)
        cuts = cuts_of(solution)
        stays = staying_slices(trace, solution)
        undoing = Undoing()
        if not cuts:
            return Shrinking({}, stays, (), 0.0, in_float64, undoing)
        if not before:
            in_float64, before = _masked_outputs(model, source.masked(), inputs)
        took = _absorptions(program, source, trace, solution)
        try:
            totals = absorb(tensors, trace.absorbed, solution, undoing)
            cut_tensors(tensors, cuts, undoing)
            literals = list(literals_of_sizes(trace, solution))
            written = follow_literals(model, literals, undoing, skipped=skipped)
            follow_sizes(model, cuts, undoing)
            failed = _proved(model, args, kwargs, program, trace, solution, names, tensors)
            if failed is None:
                run = outputs_in_float64 if in_float64 else outputs_as_it_is
                after = run(model, source.small(cuts, totals), inputs)
                error = largest_difference(before, after)
                tolerance = _FLOAT64_TOLERANCE if in_float64 else _OWN_TOLERANCE
                if error <= tolerance or approximate:
                    return Shrinking(cuts, stays, took, error, in_float64, undoing)
                raise SessionError(
                    f"the small model's outputs differ from the masked model's by {error:.3g} "
                    f"(at most {tolerance:g} was expected), so nothing was removed; "
                    "please report the structure of this model"
                )
        except BaseException:
            undoing.undo()
            raise
        undoing.undo()
        # An attribute that was written may be a number of the same value that means something else.
        suspects = {path for path in written if _is_around(path, failed.module)}
        skipped |= suspects
        if not suspects:
            pinned.update(failed.labels)
    raise SessionError("the small model does not run as predicted, so nothing was removed")


def _is_around(first: str, second: str) -> bool:
    return f"{first}.".startswith(f"{second}.") or f"{second}.".startswith(f"{first}.")


def _masked_outputs(
    model: nn.Module, values: Mapping[str, Tensor], inputs: Sequence[Inputs]
) -> tuple[bool, list[list[Tensor]]]:
    """Return whether the outputs could be computed in double precision, and the outputs."""
    if has_memory_for_copy(model):
        try:
            return True, outputs_in_float64(model, values, inputs)
        except (RuntimeError, TypeError):  # an operator without double precision
            pass
    return False, outputs_as_it_is(model, values, inputs)


def _absorptions(
    program: Program, source: MaskedWeights, trace: Trace, solution: Solution
) -> tuple[Absorption, ...]:
    """Tell what each bias takes over, and whether that is the same in training."""
    counts = {one.bias: one.count(solution.of(one.labels)) for one in trace.absorbed}
    is_fixed = not any("batch_norm" in operator_name(node) for node in program.nodes)
    trained = trace
    if any(counts.values()) and not is_fixed:
        trained = walk(program, source, is_training=True, is_approximate=trace.is_approximate)
    others = {one.bias: one for one in trained.absorbed}
    found = []
    for one in trace.absorbed:
        gone = solution.of(one.labels)
        other = others.get(one.bias)
        same = other is not None and torch.equal(one.shares[:, gone], other.shares[:, gone])
        if counts[one.bias]:
            found.append(Absorption(one.bias, counts[one.bias], "both" if same else "evaluation"))
    return tuple(found)


def named_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return parameters and buffers by name, every name of shared ones included.

    Args:
        model: the model.
    """
    return {
        **dict(model.named_parameters(remove_duplicate=False)),
        **dict(model.named_buffers(remove_duplicate=False)),
    }


def _exported(model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Program:
    try:
        return read_program(model, args, kwargs)
    except Exception as error:
        text = str(error).strip().splitlines()
        raise SessionError(
            "shrink() cannot follow the model's forward: torch.export says "
            f"{text[0] if text else type(error).__name__!r}; give example_inputs that the model "
            "runs with, take branches that depend on values out of forward, and "
            "leave caches out (use_cache=False in transformers)"
        ) from error


def _proved(
    model: nn.Module,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    program: Program,
    trace: Trace,
    solution: Solution,
    names: Mapping[int, str],
    tensors: Mapping[str, Tensor],
) -> Failure | None:
    """Return why the small model fails, or None when it is proven."""
    try:
        small = read_program(model, args, kwargs)
    except Exception as error:
        return failure_of_error(model, error, trace, solution)
    small = attrs.evolve(
        small,
        parameters={node: names[id(tensors[name])] for node, name in small.parameters.items()},
    )
    mismatch = compare(trace, solution, program, small)
    return None if mismatch is None else failure_of_mismatch(trace, solution, mismatch)


def staying_slices(trace: Trace, solution: Solution) -> tuple[Stay, ...]:
    """Name the masked slices that stay, with the first reason that is known of each.

    Args:
        trace: what flows through the masked model.
        solution: what is removed.
    """
    reasons: dict[int, str] = {}
    for label, reason in sorted(trace.labels.reasons.items()):
        reasons.setdefault(label, reason)
    found: list[Stay] = []
    for name, flow in trace.roots.items():
        kept = trace.source.kept(name)
        if kept is None or flow.ndim <= 1:
            continue
        for layer in flow.layers:
            dims = [dim for dim, size in enumerate(layer.shape) if size > 1]
            if len(dims) != 1 or dims[0] > 1:
                continue
            staying = slices_lost(kept, layer) & ~solution.of(layer)
            counts: dict[str, int] = {}
            for label in layer[staying].tolist():
                why = _why(solution, reasons, label)
                counts[why] = counts.get(why, 0) + 1
            found += [
                Stay(name, dims[0], count, why, hint_for(why)) for why, count in counts.items()
            ]
    return tuple(found)


def _why(solution: Solution, reasons: Mapping[int, str], label: int) -> str:
    component = int(solution.component[label])
    if component in solution.why:
        return solution.why[component]
    if label in reasons:
        return reasons[label]
    return "what it is tied to stays"
