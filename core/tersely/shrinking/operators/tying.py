"""Ties by operators that move channels, for walks that only collect ties."""

from __future__ import annotations

from collections.abc import Sequence

from torch.fx import Node

from tersely.shrinking.graph.flow import Flow, Trace
from tersely.shrinking.graph.labels import EqualParts, Grid, Layer, varying
from tersely.shrinking.graph.program import argument, given, operator_name, shape_of
from tersely.shrinking.graph.ties import Ties

_BY_NUMBERS = frozenset(["roll", "index", "index_select"])
_ROLLED_DIMS = 2
"""The index of the dimensions among the arguments of ``roll``."""


def keep_grids(trace: Trace, before: Sequence[Layer], after: Sequence[Layer]) -> None:
    """Let a layer of several dimensions lose only whole slices.

    Args:
        trace: the walk.
        before: layers of the operand, if there is one.
        after: the same layers of the result.
    """
    if not isinstance(trace.labels, Ties):
        for layer in after:
            if len(varying(layer)) > 1:
                trace.labels.constrain(Grid(layer))
        return
    for was, now in zip(before, after, strict=False):
        if trace.labels.moved(was, now):
            trace.labels.constrain(Grid(now))


def tie_moved(trace: Trace, labels: Ties, node: Node, columns: Sequence[Sequence[Layer]]) -> None:
    """Tie or doubt channels that an operator moves by fixed numbers.

    Args:
        trace: the walk.
        labels: its labels.
        node: the operator.
        columns: lists of one layer of each operand.
    """
    name = operator_name(node)
    for layer, *_ in columns:
        ndim = layer.ndim
        if name == "pixel_shuffle" and layer.shape[ndim - 3] > 1:
            # Channels that become one channel with more positions are tied.
            rest = layer.shape[ndim - 2 :]
            split = layer.reshape(*layer.shape[: ndim - 3], -1, int(given(node)[1]) ** 2, *rest)
            labels.tie_along(split, [ndim - 2])
        elif name == "slice":
            _tie_slice(trace, node, layer)
        elif name in _BY_NUMBERS and (dims := set(varying(layer)) & _numbered_dims(node, ndim)):
            if dims != set(varying(layer)):  # elements along them are removed together
                labels.tie_along(layer, sorted(dims))
                continue
            labels.doubt(
                layer,
                f"{name} moves channels by a number that does not follow from their count",
            )


def _numbered_dims(node: Node, ndim: int) -> set[int]:
    """The dimensions along which an operator moves by fixed numbers."""
    if operator_name(node) == "index":
        return {dim for dim, one in enumerate(given(node)[1]) if one is not None}
    if operator_name(node) == "index_select":
        return {int(given(node)[1]) % ndim}
    dims = given(node)[2] if len(given(node)) > _ROLLED_DIMS else range(ndim)
    return {dim % ndim for dim in dims}


def _tie_slice(trace: Trace, node: Node, layer: Layer) -> None:
    """A slice that is one of several of its size needs all of them to lose equally many."""
    dim = int(argument(node, 1, "dim", 0)) % layer.ndim
    if varying(layer) != (dim,):
        return
    size, length = layer.shape[dim], shape_of(node)[dim]
    start = int(argument(node, 2, "start", None) or 0) % size
    if 1 < length < size and size % length == 0 and start % length == 0:
        trace.labels.constrain(EqualParts(layer.reshape(-1, length), may_vanish=False))


def beside(trace: Trace, node: Node, column: Sequence[Layer]) -> Layer | None:
    """Return one layer for tensors that are concatenated along a dimension without channels.

    An operator that reads all of them with a weight reads the same channels of each, as of a class
    token and patches. A concatenation that is only returned ties nothing.

    Args:
        trace: the walk.
        node: the operator.
        column: one layer of each operand.
    """
    name = operator_name(node)
    if not isinstance(trace.labels, Ties) or name not in ("cat", "stack"):
        return None
    dim = int(argument(node, 1, "dim", 0)) % len(shape_of(node))
    is_along = name == "cat" and any(layer.shape[dim] > 1 for layer in column)
    if is_along or not _is_weighted(trace, node):
        return None
    first, *others = column
    for other in others:
        trace.labels.tie(first, other)
    return first if name == "cat" else first.unsqueeze(dim)


def _is_weighted(trace: Trace, node: Node) -> bool:
    """Whether an operator with a parameter reads what an operator makes, directly or not."""
    waiting, seen = [node], {node}
    for one in waiting:
        for user in one.users:
            if user not in seen:
                seen.add(user)
                waiting.append(user)
                flows = (trace.flows.get(other) for other in user.all_input_nodes)
                if any(isinstance(flow, Flow) and flow.name is not None for flow in flows):
                    return True
    return False
