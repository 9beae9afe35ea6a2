"""Why a small model differs from the prediction."""

from __future__ import annotations

from collections.abc import Mapping

import attrs
from torch import nn
from torch.fx import Node

from tersely.shrinking.graph.calling import arguments
from tersely.shrinking.graph.flow import Flow, Trace
from tersely.shrinking.graph.program import module_of
from tersely.shrinking.graph.solution import Solution
from tersely.shrinking.proving.proof import Mismatch


@attrs.frozen
class Failure:
    """Why a small model differs from the prediction.

    Attributes:
        module: the module that differs; empty for the root or if it is not known.
        labels: the labels to keep in the next attempt, and why.
        is_elsewhere: whether it matches the prediction for the example, but not for inputs of other
            sizes.
    """

    module: str
    labels: Mapping[int, str]
    is_elsewhere: bool = False


def failure_of_mismatch(trace: Trace, solution: Solution, mismatch: Mismatch) -> Failure:
    """Keep the inputs of the first operator that differs from the prediction.

    Args:
        trace: the walk over the masked model.
        solution: the removed labels.
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
    """Keep the tensors of the module that raised; everything if no module is known.

    Args:
        model: the small model.
        error: what it raised.
        trace: the walk over the masked model.
        solution: the removed labels.
    """
    paths = {id(module): path for path, module in model.named_modules()}
    place, line = "", None
    step = error.__traceback__
    while step is not None:
        owner = step.tb_frame.f_locals.get("self")
        if isinstance(owner, nn.Module) and id(owner) in paths:
            place = paths[id(owner)]
            line = f'"{step.tb_frame.f_code.co_filename}", line {step.tb_lineno}, '
        step = step.tb_next
    text = (str(error).strip().splitlines() or [type(error).__name__])[0]
    reason = f"forward of {place or 'the model'} raises on the small model: {text}"
    operators = [node for node in trace.flows if node.op == "call_function"]
    found: dict[int, str] = {}
    for node in operators:
        if module_of(node) == place and line and line in (node.meta.get("stack_trace") or ""):
            found |= _read(trace, solution, node, reason)
    for node in operators if place and not found else ():
        own = module_of(node)
        if own == place or own.startswith(place + "."):
            found |= _going(trace, solution, node, reason)
    return Failure(place, found or _all_going(trace, solution, reason))


def _read(trace: Trace, solution: Solution, node: Node, reason: str) -> dict[int, str]:
    """The removed labels of the activations that an operator reads."""
    found: dict[int, str] = {}
    for one in arguments(node):
        flow = trace.flow(one)
        if flow is not None and flow.read is None:
            found |= _going_of(solution, flow, reason)
    return found
