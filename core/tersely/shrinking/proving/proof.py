"""The proof: the small model's program compared with what was predicted."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor
from torch.fx import Node

from tersely.shrinking.graph.calling import arguments
from tersely.shrinking.graph.flow import Flow, Trace
from tersely.shrinking.graph.labels import varying
from tersely.shrinking.graph.program import (
    Program,
    given,
    module_of,
    operator_name,
    shape_of,
)
from tersely.shrinking.graph.solution import Solution
from tersely.shrinking.operators.mixing import CREATORS
from tersely.shrinking.operators.moving import is_moving, moved, run_on
from tersely.shrinking.proving.predict import groups_after, shape_after

_COPIES = frozenset(("clone", "contiguous", "alias", "detach"))
_VIEWS = frozenset(("view", "_unsafe_view", "reshape"))
_PLAIN = frozenset(["permute", "transpose", "t", "numpy_T", "unsqueeze", "squeeze", "unbind"])


@attrs.frozen(eq=False)
class Mismatch:
    """The first operator of the small model that differs from the prediction.

    Attributes:
        node: the operator in the program before.
        message: the difference, as text.
    """

    node: Node
    message: str

    @property
    def module(self) -> str:
        """The module whose forward runs it."""
        return module_of(self.node)


def compare(trace: Trace, solution: Solution, old: Program, new: Program) -> Mismatch | None:
    """Compare the program of the small model with the prediction, operator by operator.

    Args:
        trace: the walk over the program before.
        solution: the removed labels.
        old: the program before.
        new: the program of the small model.

    Returns:
        The first difference, or None.
    """
    twin: dict[Node, Node] = {}
    remaining = [node for node in new.nodes if not _is_copy(node)]
    for before in (node for node in old.nodes if not _is_copy(node)):
        if len(twin) >= len(remaining):
            return Mismatch(before, "the small model runs fewer operators")
        after = remaining[len(twin)]
        twin[before] = after
        if before.op != after.op or _kind(before) != _kind(after):
            return Mismatch(before, f"the small model runs {operator_name(after)} instead of it")
        if old.parameters.get(before) != new.parameters.get(after):
            return Mismatch(before, "the small model reads another parameter")
        message = _differs(trace, solution, before, after, twin)
        if message:
            return Mismatch(before, message)
    if len(remaining) != len(twin):
        return Mismatch(old.nodes[-1], "the small model runs more operators")
    return None


def _is_copy(node: Node) -> bool:
    """Tell whether an operator only copies; smaller tensors need other copies before views."""
    return node.op == "call_function" and operator_name(node) in _COPIES


def _kind(node: Node) -> Any:
    if node.op != "call_function":
        return node.op
    return "view" if operator_name(node) in _VIEWS else node.target


def _operands(node: Node) -> list[Node]:
    """An operator's operands, seen through copies."""
    found = []
    for one in arguments(node):
        source = one
        while _is_copy(source):
            source = given(source)[0]
        found.append(source)
    return found


def _differs(
    trace: Trace, solution: Solution, before: Node, after: Node, twin: Mapping[Node, Node]
) -> str | None:
    if [twin[one] for one in _operands(before)] != _operands(after):
        return "it reads other operators"
    flow = trace.flow(before)
    if flow is not None and isinstance(before.meta.get("val"), Tensor):
        predicted = shape_after(solution, flow)
        if predicted != shape_of(after) and not _is_fibred(flow):
            return f"its result is {shape_of(after)}, and {predicted} was predicted"
    if before.op != "call_function" or before.target is operator.getitem:
        return None
    return _acts_otherwise(trace, solution, before, after)


def _acts_otherwise(trace: Trace, solution: Solution, before: Node, after: Node) -> str | None:
    if is_moving(trace, before):
        alike = _literals(before) == _literals(after)
        uncut = all(_is_uncut(solution, trace.flow(one)) for one in arguments(before))
        if not alike or not (uncut or operator_name(before) in _PLAIN):
            return _moves_otherwise(trace, solution, before, after)
        return None
    expected = _predicted_literals(trace, solution, before)
    if expected != _literals(after):
        return f"it has the arguments {_literals(after)}, and {expected} was predicted"
    return None


def _predicted_literals(trace: Trace, solution: Solution, node: Node) -> Any:
    """The literals of an operator in the small model, with its sizes and groups."""
    name = operator_name(node)
    changed = list(given(node))
    if name in CREATORS:
        place = 0 if name in ("zeros", "ones", "full") else 1
        changed[place] = list(shape_after(solution, trace.tensor(node)))
    groups = groups_after(trace, solution, node)
    place = 1 if name == "group_norm" else 6
    if groups is not None and len(changed) > place:
        changed[place] = groups
    return _plain((_filled(node, changed), dict(node.kwargs)))


def _is_fibred(flow: Flow) -> bool:
    """Tell whether each row of a weight loses different columns, so that no grid remains."""
    return flow.name is not None and any(len(varying(layer)) > 1 for layer in flow.layers)


def _plain(value: Any) -> Any:
    return torch.fx.node.map_arg(value, lambda node: "tensor")


def _literals(node: Node) -> Any:
    return _plain((_filled(node, node.args), dict(node.kwargs)))


def _filled(node: Node, args: Sequence[Any]) -> tuple[Any, ...]:
    """Positional arguments, with the defaults that an export omits."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return tuple(args)
    missing = [
        one.default_value
        for one in node.target._schema.arguments[len(args) :]
        if one.has_default_value() and not one.kwarg_only and one.name not in node.kwargs
    ]
    return (*args, *missing)


def _is_uncut(solution: Solution, flow: Flow | None) -> bool:
    return flow is None or not bool(solution.lost(flow).any())


def _moves_otherwise(trace: Trace, solution: Solution, before: Node, after: Node) -> str | None:
    """Number all elements, and compare the positions of those that stay."""
    first = 0
    old_values: dict[Node, Tensor] = {}
    new_values: dict[Node, Tensor] = {}
    pairs = dict(zip(arguments(before), arguments(after), strict=True))
    movable = set(moved(before))
    for one, twin in pairs.items():
        flow = trace.tensor(one)
        if one not in movable:
            if flow.read is not None:
                old_values[one] = flow.values()
                new_values[twin] = old_values[one]
            else:
                old_values[one] = torch.empty(flow.shape)
                new_values[twin] = torch.empty(shape_of(twin))
            continue
        # Copies of one position are equivalent, whichever of them are left.
        same = trace.repeated.get(one)
        shape = [1 if dim == same else size for dim, size in enumerate(flow.shape)]
        size = torch.Size(shape).numel()
        numbers = torch.arange(first + 1, first + size + 1).view(shape).expand(flow.shape)
        first += size
        old_values[one] = numbers
        new_values[twin] = _cut(solution, flow, numbers)
    try:
        moved_before, moved_after = run_on(before, old_values), run_on(after, new_values)
    except (RuntimeError, IndexError) as error:
        return f"it cannot move what is left: {error}"
    several = isinstance(moved_before, list | tuple)
    flows = trace.flows[before]
    rows = zip(
        moved_before if several else [moved_before],
        moved_after if several else [moved_after],
        flows if isinstance(flows, tuple) else [flows],
        strict=False,
    )
    if several and len(moved_before) != len(moved_after):
        return "it makes another number of tensors"
    for was, now, flow in rows:
        expected = _cut(solution, flow, was)
        if expected.shape != now.shape or not torch.equal(expected, now):
            return "it moves other elements than predicted"
    return None


def _cut(solution: Solution, flow: Flow, tensor: Tensor) -> Tensor:
    for dim, kept in enumerate(solution.kept_indices(flow)):
        if kept is not None:
            tensor = tensor.index_select(dim, kept)
    return tensor
