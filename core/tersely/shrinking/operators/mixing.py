"""Rules of operators that mix dimensions or select: sums, softmax, pools, gates, embeddings."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from tersely.shrinking.graph.calling import arguments, call
from tersely.shrinking.graph.flow import Flow, Trace, settle
from tersely.shrinking.graph.labels import Layer, varying
from tersely.shrinking.graph.program import argument, given, operator_name, shape_of
from tersely.shrinking.operators.moving import passed, whole_along, without
from tersely.shrinking.operators.reading import values_along, whatever_the_count
from tersely.shrinking.operators.single import is_single, reduced_dims

REDUCTIONS = frozenset(
    [
        "mean",
        "sum",
        "amax",
        "amin",
        "var",
        "std",
        "prod",
        "logsumexp",
        "norm",
        "linalg_vector_norm",
        "any",
        "all",
        "max",
        "min",
        "median",
        "nanmedian",
        "argmax",
        "argmin",
    ]
)
ALONG = frozenset(
    ["softmax", "_softmax", "log_softmax", "_log_softmax", "cumsum", "cumprod", "logcumsumexp"]
)
LOCAL = re.compile(
    r"(adaptive_)?(max|avg)_pool([123])d(_with_indices)?\Z|upsample_.*([123])d\w*\Z|"
    r"(reflection|replication)_pad([123])d\Z|_upsample_.*([12])d_aa\Z|_upsample_nearest_exact[123]d\Z"
)
_KNOWN = frozenset(
    ["mean", "sum", "amax", "amin", "linalg_vector_norm", "max", "min", "median", "logsumexp"]
)
"""Reductions whose value is known if all reduced values are."""

LIKE = {"zeros_like": 0.0, "ones_like": 1.0, "full_like": None}
"""Operators that create a tensor of one value in another's shape -> the value."""

CREATORS = frozenset(["zeros", "ones", "full", "new_zeros", "new_ones", "new_full", "empty_"])


def trace_reduction(trace: Trace, node: Node) -> Flow | tuple[Flow, ...]:
    """Reduce dimensions, all of which stay."""
    name = operator_name(node)
    x = trace.tensor(given(node)[0])
    dims, keep = reduced_dims(node, x.ndim)
    if _adds(node):
        layers = _summed_layers(trace, x, dims, name)
    else:
        layers = passed(trace, node, x, dims, f"{name} reduces them")
    layers = tuple(without(layer, dims, keep=keep) for layer in layers)
    constant = None
    if x.constant is not None and name in _KNOWN:
        counted = [dim for dim in dims if not is_single(trace, given(node)[0], dim)]
        known = _spread(whatever_the_count(x, counted, name), dims)
        unknown = known.isnan().any(dims, keepdim=keep)
        result = call(node, {given(node)[0]: known.nan_to_num(0.0)})
        result = result[0] if isinstance(result, tuple) else result
        constant = settle(torch.where(unknown, torch.nan, result))
    values = node.meta["val"]
    if isinstance(values, list | tuple):
        first, *rest = (tuple(value.shape) for value in values)
        return (Flow(first, layers, constant), *(Flow(shape, layers) for shape in rest))
    read = None
    if x.read is not None:

        def read() -> Tensor:
            result: Tensor = call(node, {given(node)[0]: x.values()})
            return result

    return Flow(shape_of(node), layers, constant, read)


def _adds(node: Node) -> bool:
    """Tell whether zeros do not change an operator's result."""
    name = operator_name(node)
    order = argument(node, 1, "ord" if name == "linalg_vector_norm" else "p", 2)
    is_norm = name in ("linalg_vector_norm", "norm") and (2 if order is None else order) >= 0
    return is_norm or name == "sum"


def summed(trace: Trace, flow: Flow, dims: Sequence[int], what: str) -> Flow:
    """Return the sum of a tensor along dimensions, without these.

    Args:
        trace: the walk.
        flow: the tensor.
        dims: the dimensions, not negative.
        what: the operator, for reasons.
    """
    layers = _summed_layers(trace, flow, dims, what)
    shape = tuple(size for dim, size in enumerate(flow.shape) if dim not in dims)
    constant = None
    if flow.constant is not None:
        constant = settle(_spread(whatever_the_count(flow, dims, what), dims).sum(list(dims)))
    return Flow(shape, tuple(without(x, dims, keep=False) for x in layers), constant)


def _summed_layers(trace: Trace, x: Flow, dims: Sequence[int], what: str) -> tuple[Layer, ...]:
    """Remove positions that add nothing."""
    passing = []
    for layer in x.layers:
        if not set(varying(layer)) <= set(dims):
            passing.append(trace.labels.tie_along(layer, list(dims)))
        elif len(varying(layer)) == 1 and trace.has_values:
            adds = values_along(x, varying(layer)[0]) != 0
            trace.labels.pin(layer.reshape(-1)[adds], f"{what} reduces them")
        else:
            trace.labels.pin(layer, f"{what} reduces them")
    return tuple(passing)


def _spread(x: Flow, dims: Sequence[int]) -> Tensor:
    """A tensor's constants, as often along dimensions as it has positions there."""
    known = x.known()
    return known.expand([x.shape[d] if d in dims else known.shape[d] for d in range(x.ndim)])


def trace_along(trace: Trace, node: Node) -> Flow:
    """Mix along one dimension, which stays."""
    x = trace.tensor(given(node)[0])
    dim = int(argument(node, 1, "dim")) % x.ndim
    if not trace.has_values:
        return Flow(x.shape, whole_along(trace, x, [dim]).layers)
    name = operator_name(node)
    constant = None
    if name in ("cumsum", "cumprod") and x.constant is not None:
        zero = (x.constant == 0).all(dim, keepdim=True)
        constant = settle(torch.where(zero, 0.0, torch.nan).to(torch.float64))
    return Flow(x.shape, passed(trace, node, x, [dim], f"{name} mixes them"), constant)


def trace_local(trace: Trace, node: Node) -> Flow | tuple[Flow, ...]:
    """Mix neighbouring positions, of which all stay; channels pass."""
    spatial = next(number for number in (1, 2, 3) if f"{number}d" in operator_name(node))
    x = trace.tensor(given(node)[0])
    dims = list(range(x.ndim - spatial, x.ndim))
    layers = passed(trace, node, x, dims, f"{operator_name(node)} mixes positions")
    constant = None
    if x.constant is not None:
        known = x.constant.expand([*x.constant.shape[: x.ndim - spatial], *x.shape[-spatial:]])
        result = call(node, {given(node)[0]: known})
        constant = settle(result[0] if isinstance(result, tuple) else result)
    values = node.meta["val"]
    if isinstance(values, list | tuple):
        first, *rest = values
        return (
            Flow(tuple(first.shape), layers, constant),
            *(Flow(tuple(v.shape), layers) for v in rest),
        )
    return Flow(shape_of(node), layers, constant)


def trace_embedding(trace: Trace, node: Node) -> Flow:
    """Look rows up, all of which stay; columns pass."""
    weight, shape = trace.tensor(given(node)[0]), shape_of(node) or (1, 1)
    trace.pin(weight, "rows are looked up by the input", (0,))
    own = [layer for layer in weight.layers if varying(layer) == (1,)]
    layers = tuple(layer.reshape((1,) * (len(shape) - 1) + (-1,)) for layer in own)
    if weight.name is not None and own:
        trace.makers[weight.name] = own[0].reshape(-1)
    if not trace.has_values:
        return Flow(shape, layers)
    values = weight.values()
    same = values.amin(0) == values.amax(0)
    held = torch.where(same, values[0].to(torch.float64), torch.nan)
    return Flow(shape, layers, settle(held.reshape((1,) * (len(shape) - 1) + (-1,))))


def trace_bag(trace: Trace, node: Node) -> tuple[Flow, ...]:
    """Combine rows that are looked up, all of which stay; columns pass, and zeros stay zeros."""
    weight = trace.tensor(given(node)[0])
    looked_up = trace_embedding(trace, node)
    for one in arguments(node)[1:]:
        if one is not given(node)[0] and (flow := trace.flow(one)) is not None:
            trace.pin(flow, "it says which rows are looked up")
    zero = torch.where(looked_up.known() == 0, 0.0, torch.nan).to(torch.float64)
    constant = settle(zero.reshape(1, -1)) if trace.has_values else None
    layers = tuple(layer.reshape(1, -1) for layer in weight.layers if varying(layer) == (1,))
    first, *rest = (tuple(value.shape) for value in node.meta["val"])
    return (Flow(first, layers, constant), *(Flow(shape) for shape in rest))


def trace_creator(trace: Trace, node: Node) -> Flow:
    """Create a tensor of one value, which fits any size."""
    shape = shape_of(node)
    if not trace.has_values:
        return Flow(shape)
    layers: list[Layer] = [
        trace.labels.new([size if d == dim else 1 for d in range(len(shape))])
        for dim, size in enumerate(shape)
        if size > 1
    ]
    value: Any = {"zeros": 0, "ones": 1, "new_zeros": 0, "new_ones": 1}.get(operator_name(node))
    if value is None:
        value = given(node)[2] if operator_name(node) == "new_full" else given(node)[1]
    constant: Tensor | None = None
    if isinstance(value, int | float):
        constant = torch.full((1,) * len(shape), float(value), dtype=torch.float64)
    return Flow(shape, tuple(layers), constant)


def trace_like(trace: Trace, node: Node) -> Flow:
    """Create a tensor of one value that loses the same as the tensor whose shape it has."""
    x = trace.tensor(given(node)[0])
    value = LIKE[operator_name(node)]
    value = argument(node, 1, "fill_value") if value is None else value
    constant = None
    if isinstance(value, int | float):
        constant = torch.full((1,) * x.ndim, float(value), dtype=torch.float64)
    return Flow(x.shape, x.layers, constant)


def trace_unknown(trace: Trace, node: Node) -> Flow | tuple[Flow, ...]:
    """Keep everything that an operator without a rule reads."""
    flows = [flow for one in arguments(node) if (flow := trace.flow(one)) is not None]
    for flow in flows:
        trace.doubt(flow, f"there is no rule for the operator {operator_name(node)}")
    values = node.meta.get("val")
    if isinstance(values, list | tuple):
        return tuple(Flow(tuple(v.shape)) if isinstance(v, Tensor) else Flow(()) for v in values)
    read = None
    fixed = all(flow.read is not None for flow in flows) and "rand" not in operator_name(node)
    if fixed and isinstance(values, Tensor):

        def read() -> Tensor:
            values = {one: trace.tensor(one).values() for one in arguments(node)}
            result: Tensor = call(node, values)
            return result

    return Flow(shape_of(node), read=read)


def trace_glu(trace: Trace, node: Node) -> Flow:
    """Tie position i of the first half, the values, with position i of the second, the gates."""
    x = trace.tensor(given(node)[0])
    dim = int(argument(node, 1, "dim", -1)) % x.ndim
    layers = []
    for layer in x.layers:
        values, gates = _halves(layer, dim)
        trace.labels.tie(values, gates)
        layers.append(values)
    if not trace.has_values:
        return Flow(shape_of(node), tuple(layers))
    values, gates = _halves(x.known(), dim)
    held = torch.where(values == 0, 0.0, values * gates.sigmoid())
    return Flow(shape_of(node), tuple(layers), settle(held))


def _halves(tensor: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    if tensor.shape[dim] == 1:
        return tensor, tensor
    first, second = tensor.chunk(2, dim)
    return first, second
