"""Operators that only move elements: they are run on labels and on constants."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor
from torch.fx import Node

from tersely.shrinking.graph.calling import arguments, call
from tersely.shrinking.graph.flow import Flow, Trace, settle
from tersely.shrinking.graph.labels import EqualParts, Layer, reduced, varying
from tersely.shrinking.graph.program import given, operator_name, shape_of
from tersely.shrinking.graph.ties import Ties
from tersely.shrinking.operators.tying import beside, keep_grids, tie_moved

NAMES = frozenset(
    [
        "view",
        "_unsafe_view",
        "reshape",
        "_reshape_alias",
        "permute",
        "transpose",
        "t",
        "numpy_T",
        "unsqueeze",
        "squeeze",
        "expand",
        "expand_as",
        "slice",
        "select",
        "split",
        "split_with_sizes",
        "chunk",
        "tensor_split",
        "unbind",
        "cat",
        "concat",
        "stack",
        "flatten",
        "unflatten",
        "pixel_shuffle",
        "pixel_unshuffle",
        "channel_shuffle",
        "native_channel_shuffle",
        "roll",
        "flip",
        "repeat",
        "tile",
        "narrow",
        "index_select",
        "movedim",
        "swapaxes",
        "swapdims",
        "constant_pad_nd",
        "pad",
        "repeat_interleave",
        "select_scatter",
        "slice_scatter",
        "diagonal",
        "rot90",
        "view_as",
        "reshape_as",
        "squeeze_copy",
        "unfold",
        "adjoint",
        "mT",
    ]
)


def is_moving(trace: Trace, node: Node) -> bool:
    """Tell whether an operator moves elements to places that do not depend on the input.

    Args:
        trace: the walk.
        node: the operator.
    """
    name = operator_name(node)
    if name == "repeat_interleave":
        return isinstance(given(node)[1] if len(given(node)) > 1 else None, int)
    if name == "index":
        indices = [flow for one in given(node)[1] if (flow := trace.flow(one)) is not None]
        return trace.tensor(given(node)[0]).read is None and all(
            x.read is not None for x in indices
        )
    if name == "index_select":
        return trace.tensor(given(node)[2]).read is not None
    return name in NAMES


def moved(node: Node) -> list[Node]:
    """Return the operands whose elements an operator moves; others are indices.

    Args:
        node: the operator.
    """
    name = operator_name(node)
    if name in ("index", "index_select"):
        return [given(node)[0]]
    if name in ("expand_as", "view_as", "reshape_as"):
        return [given(node)[0]]
    return arguments(node)


def trace_moving(trace: Trace, node: Node) -> Flow | tuple[Flow, ...]:
    """Move labels and constants as the operator moves elements."""
    operands = list(dict.fromkeys(moved(node)))
    flows = {one: trace.tensor(one) for one in operands}
    others = {
        one: flow.values() if (flow := trace.tensor(one)).read else torch.empty(flow.shape)
        for one in arguments(node)
        if one not in flows
    }
    columns = _columns(trace, list(flows.values()))
    if "channel_shuffle" in operator_name(node):
        columns = [[_alike(trace, layer, int(given(node)[1]))] for (layer,) in columns]
    if isinstance(trace.labels, Ties):
        tie_moved(trace, trace.labels, node, columns)
    runs = []
    for column in columns:
        layers = {
            one: layer.expand(flow.shape)
            for (one, flow), layer in zip(flows.items(), column, strict=True)
        }
        first = column[0]
        if "pad" in operator_name(node) and all(first.shape[d] == 1 for d in _padded(node)):
            runs.append([first])  # a border is not a channel of its own
        elif (together := beside(trace, node, column)) is not None:
            runs.append([together])
        else:
            runs.append(_outputs(run_on(node, {**others, **layers})))
    known = {one: flow.known() for one, flow in flows.items()} if trace.has_values else {}
    constants: list[Tensor] = []
    if not all(bool(value.isnan().all()) for value in known.values()):
        constants = _outputs(
            run_on(node, {**others, **{k: v.expand(flows[k].shape) for k, v in known.items()}})
        )
    values = node.meta["val"]
    several = isinstance(values, list | tuple)
    if several and operator_name(node) in ("split", "chunk"):
        _equal_parts(trace, runs)
    made = []
    for i, value in enumerate(values if several else [values]):
        own = tuple(reduced(run[i]) for run in runs)
        own = tuple(layer for layer in own if bool((layer != 0).any()))
        if 0 in value.shape and trace.has_values and len(flows) == 1:
            own = _of_nothing(trace, next(iter(flows.values())), tuple(value.shape))
        keep_grids(trace, [column[0] for column in columns] if len(flows) == 1 else [], own)
        constant = settle(constants[i]) if constants else None
        read = _reader(node, flows, others, i if several else None)
        made.append(Flow(tuple(value.shape), own, constant, read))
    return tuple(made) if several else made[0]


def _of_nothing(trace: Trace, x: Flow, shape: tuple[int, ...]) -> tuple[Layer, ...]:
    """Labels of a slice of no positions, as of heads of which none is passed on: slices go whole.

    Args:
        trace: the walk.
        x: what the slice is of.
        shape: of the slice.
    """
    emptied = [dim for dim, size in enumerate(shape) if size == 0]
    if len(shape) != x.ndim:
        return ()
    layers = (layer for layer in x.layers if not set(varying(layer)) <= set(emptied))
    return tuple(trace.labels.whole(layer, emptied) for layer in layers)


def _alike(trace: Trace, layer: Layer, groups: int) -> Layer:
    """Labels of channels that a shuffle of groups removes from all groups at once."""
    if layer.shape[1] == 1:
        return layer
    split = layer.reshape(layer.shape[0], groups, -1, *layer.shape[2:])
    return trace.labels.tie_along(split, [1]).expand(split.shape).reshape(layer.shape)


def _equal_parts(trace: Trace, runs: Sequence[Sequence[Layer]]) -> None:
    """A split into equal parts needs equal parts."""
    for run in runs:
        parts = [reduced(part).reshape(-1) for part in run]
        sizes = {part.numel() for part in parts}
        if len(sizes) == 1 and sizes != {1}:
            constraint = EqualParts(torch.stack(parts), may_vanish=False)
            trace.labels.constrain(constraint)


def _padded(node: Node) -> list[int]:
    ndim = len(shape_of(node))
    amounts = given(node)[1]
    return [ndim - 1 - i // 2 for i, amount in enumerate(amounts) if amount]


def _columns(trace: Trace, flows: Sequence[Flow]) -> list[list[Layer]]:
    """Return lists of one layer for each operand: one list, or several when all have as many."""
    if len(flows) == 1:
        return [[layer] for layer in flows[0].layers]
    if isinstance(trace.labels, Ties):
        return trace.labels.columns([x.shape for x in flows], [x.layers for x in flows])
    alike = {tuple(varying(layer) for layer in flow.layers) for flow in flows}
    if len(alike) == 1 and len(flows[0].layers) > 1:
        return [list(column) for column in zip(*(flow.layers for flow in flows), strict=True)]
    merged = [trace.labels.joined(flow.layers) for flow in flows]
    if all(layer is None for layer in merged):
        return []
    return [
        [
            torch.zeros((1,) * flow.ndim, dtype=torch.int64) if layer is None else layer
            for flow, layer in zip(flows, merged, strict=True)
        ]
    ]


def run_on(node: Node, values: dict[Node, Any]) -> Any:
    """Run an operator that moves elements; for labels, a view may have to copy.

    Args:
        node: the operator.
        values: node -> what to move, of the node's shape.
    """
    if operator_name(node) in ("view", "_unsafe_view"):
        (operand,) = moved(node)
        return torch.reshape(values[operand], given(node)[1])
    return call(node, values)


def _outputs(result: Any) -> list[Tensor]:
    return list(result) if isinstance(result, list | tuple) else [result]


def _reader(
    node: Node, flows: dict[Node, Flow], others: dict[Node, Tensor], index: int | None
) -> Callable[[], Tensor] | None:
    if any(flow.read is None for flow in flows.values()):
        return None

    def read() -> Tensor:
        result: Any = run_on(
            node, {**others, **{one: flow.values() for one, flow in flows.items()}}
        )
        chosen: Tensor = result if index is None else result[index]
        return chosen

    return read


def passed(
    trace: Trace, node: Node, flow: Flow, dims: Sequence[int], reason: str
) -> tuple[Layer, ...]:
    """Return the labels after an operator that mixes dimensions.

    Args:
        trace: the walk.
        node: the operator, whose result has the operand's number of dimensions.
        flow: the operand.
        dims: the dimensions that it mixes, not negative.
        reason: why they stay.
    """
    passing = []
    for layer in flow.layers:
        if set(varying(layer)) <= set(dims):
            trace.labels.pin(layer, reason)
        else:
            passing.append(trace.labels.tie_along(layer, list(dims)))
    return tuple(passing)


def whole_along(trace: Trace, flow: Flow, dims: Sequence[int]) -> Flow:
    """Return a tensor of which slices along other dimensions go whole, as heads, if any go.

    Args:
        trace: the walk.
        flow: the tensor.
        dims: the dimensions that are mixed, not negative.
    """
    layers = tuple(
        layer if set(varying(layer)) <= set(dims) else trace.labels.tie_along(layer, dims)
        for layer in flow.layers
    )
    return attrs.evolve(flow, layers=layers)


def without(layer: Layer, dims: Sequence[int], *, keep: bool) -> Layer:
    """Return a layer without dimensions along which it has size 1.

    Args:
        layer: the layer.
        dims: the dimensions, not negative.
        keep: whether they remain with size 1.
    """
    if keep:
        return layer
    return layer.reshape([size for dim, size in enumerate(layer.shape) if dim not in dims])
