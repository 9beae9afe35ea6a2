"""Why a small model is not what was predicted, and why masked slices stay."""

from __future__ import annotations

from collections.abc import Mapping

import attrs
from torch import nn
from torch.fx import Node

from tersely.shrinking.graph.flow import Flow, Trace, arguments
from tersely.shrinking.graph.program import module_of
from tersely.shrinking.graph.solve import Solution, slices_lost
from tersely.shrinking.proving.proof import Mismatch
from tersely.shrinking.report import Stay, hint_for


@attrs.frozen
class Failure:
    """Why a small model is not what was predicted.

    Attributes:
        module: the module where that shows; empty for the root or where it is not known.
        labels: what to keep next time, and why.
    """

    module: str
    labels: Mapping[int, str]


def failure_of_mismatch(trace: Trace, solution: Solution, mismatch: Mismatch) -> Failure:
    """Keep what reaches the first operator that computes something else than was predicted.

    Args:
        trace: what flows through the masked model.
        solution: what was removed.
        mismatch: where the small model differs from the prediction.
    """
    node = mismatch.node
    place = f"{mismatch.module or 'the model'} ({node.name})"
    reason = f"forward of {place} depends on the size: {mismatch.message}"
    found: dict[int, str] = {}
    frontier = [node]
    while frontier and not found:
        for one in frontier:
            found |= _going(trace, solution, one, reason)
        frontier = [other for one in frontier for other in arguments(one)]
    return Failure(mismatch.module, found or _all_going(trace, solution, reason))


def _going(trace: Trace, solution: Solution, node: Node, reason: str) -> dict[int, str]:
    found: dict[int, str] = {}
    for one in [node, *arguments(node)]:
        flows = trace.flows.get(one, ())
        for flow in flows if isinstance(flows, tuple) else (flows,):
            found |= _going_of(solution, flow, reason)
    return found


def _going_of(solution: Solution, flow: Flow, reason: str) -> dict[int, str]:
    found: dict[int, str] = {}
    for layer in flow.layers:
        for label in layer[solution.of(layer)].reshape(-1).tolist():
            found[label] = reason
    return found


def _all_going(trace: Trace, solution: Solution, reason: str) -> dict[int, str]:
    found: dict[int, str] = {}
    for flow in trace.roots.values():
        found |= _going_of(solution, flow, reason)
    return found


def failure_of_error(
    model: nn.Module, error: Exception, trace: Trace, solution: Solution
) -> Failure:
    """Keep what the module that raised works with; everything when no module is known.

    Args:
        model: the small model.
        error: what it raised.
        trace: what flows through the masked model.
        solution: what was removed.
    """
    paths = {id(module): path for path, module in model.named_modules()}
    place = None
    step = error.__traceback__
    while step is not None:
        owner = step.tb_frame.f_locals.get("self")
        if isinstance(owner, nn.Module) and paths.get(id(owner)):
            place = paths[id(owner)]
        step = step.tb_next
    text = (str(error).strip().splitlines() or [type(error).__name__])[0]
    reason = f"forward of {place or 'the model'} raises on the small model: {text}"
    found: dict[int, str] = {}
    if place:
        for node in trace.flows:
            own = module_of(node)
            if node.op == "call_function" and (own == place or own.startswith(place + ".")):
                found |= _going(trace, solution, node, reason)
    return Failure(place or "", found or _all_going(trace, solution, reason))


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
