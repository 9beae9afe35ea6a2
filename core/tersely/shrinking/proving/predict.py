"""The prediction for the small model's program: shapes, and literals that depend on sizes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import attrs
import torch
from torch.fx import Node

from tersely.shrinking.graph.flow import Flow, Trace
from tersely.shrinking.graph.program import argument, given, module_of, operator_name
from tersely.shrinking.graph.solution import Solution
from tersely.shrinking.operators import convolution, normalizing
from tersely.shrinking.operators.mixing import CREATORS


@attrs.frozen
class Literal:
    """A number in the program that depends on a size.

    Attributes:
        node: the operator whose argument it is.
        old: the number.
        new: its new value.
    """

    node: Node
    old: int
    new: int


def shape_after(solution: Solution, flow: Flow) -> tuple[int, ...]:
    """Return a tensor's shape in the small model.

    Args:
        solution: the labels that are removed.
        flow: the tensor.
    """
    kept = solution.kept_indices(flow)
    return tuple(
        size if positions is None else positions.numel()
        for size, positions in zip(flow.shape, kept, strict=True)
    )


def literals_of_sizes(trace: Trace, solution: Solution) -> Iterator[Literal]:
    """Return the literals that depend on sizes, including those that do not change.

    Args:
        trace: the result of the walk.
        solution: the labels that are removed.
    """
    for node, flow in trace.flows.items():
        if node.op != "call_function":
            continue
        name = operator_name(node)
        if isinstance(flow, tuple):
            if name == "split":
                yield from _differing(
                    node, [given(node)[1]], flow, solution, (given(node)[2:] or [0])[0]
                )
            continue
        if name in ("view", "_unsafe_view", "reshape", "expand") or name in CREATORS:
            index = 0 if name in ("zeros", "ones", "full") else 1
            after = shape_after(solution, flow)
            lead = len(after) - len(given(node)[index])
            for old, size, new in zip(
                given(node)[index], flow.shape[lead:], after[lead:], strict=True
            ):
                if old == size and size > 1:
                    yield Literal(node, old, new)
        elif name == "repeat_interleave" and argument(node, 2, "dim") is not None:
            yield from _repeats(trace, solution, node)
        elif name == "slice" and argument(node, 3, "end") is not None:
            yield from _ends(trace, solution, node)
        else:
            groups = groups_after(trace, solution, node)
            if groups is not None and groups != groups_before(node):
                yield Literal(node, groups_before(node), groups)


def _repeats(trace: Trace, solution: Solution, node: Node) -> Iterator[Literal]:
    dim, times = int(argument(node, 2, "dim")), given(node)[1]
    result, source = trace.tensor(node), trace.tensor(given(node)[0])
    new = shape_after(solution, result)[dim] // shape_after(solution, source)[dim]
    if new != times:
        yield Literal(node, times, new)


def _ends(trace: Trace, solution: Solution, node: Node) -> Iterator[Literal]:
    dim, start, end = given(node)[1], given(node)[2] or 0, argument(node, 3, "end")
    source = trace.tensor(given(node)[0])
    kept = solution.kept_indices(source)[dim]
    for one in (end, start) if kept is not None else ():
        if 0 < one < source.shape[dim]:
            yield Literal(node, one, int((kept < one).sum()))


def sizes_in_modules(trace: Trace, solution: Solution) -> dict[str, dict[int, set[int]]]:
    """Return the old and new sizes of each module's tensors.

    Args:
        trace: the result of the walk.
        solution: the labels that are removed.
    """
    found: dict[str, dict[int, set[int]]] = {}
    for node, flow in trace.flows.items():
        if node.op != "call_function" or isinstance(flow, tuple):
            continue
        own = found.setdefault(module_of(node), {})
        for old, new in zip(flow.shape, shape_after(solution, flow), strict=True):
            if old > 1:
                own.setdefault(old, set()).add(new)
    return found


def _differing(
    node: Node, sizes: list[Any], flows: tuple[Flow, ...], solution: Solution, dim: int
) -> Iterator[Literal]:
    after = shape_after(solution, flows[0])[dim]
    if flows[0].shape[dim] == sizes[0] and after != sizes[0]:
        yield Literal(node, sizes[0], after)


def groups_before(node: Node) -> int:
    """Return the groups of a convolution or group norm.

    Args:
        node: the operator.
    """
    if operator_name(node) == "group_norm":
        return normalizing.groups_of(node)
    return convolution.groups_of(node)


def groups_after(trace: Trace, solution: Solution, node: Node) -> int | None:
    """Return the remaining groups of a convolution or group norm; None for other operators.

    Args:
        trace: the result of the walk.
        solution: the labels that are removed.
        node: the operator.
    """
    name = operator_name(node)
    if name != "group_norm" and not convolution.NAME.match(name):
        return None
    flow = trace.tensor(node)
    dim = 1 if name == "group_norm" else flow.ndim - convolution.spatial_of(node) - 1
    groups = groups_before(node)
    kept = solution.kept_indices(flow)[dim]
    if kept is None:
        return groups
    return int(torch.unique(kept // (flow.shape[dim] // groups)).numel())
