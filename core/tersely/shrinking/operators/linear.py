"""Rules of linear layers and matrix products."""

from __future__ import annotations

import attrs
import torch
from torch import Tensor
from torch.fx import Node

from tersely.shrinking.graph.calling import arguments
from tersely.shrinking.graph.flow import Flow, Trace, aligned, settle
from tersely.shrinking.graph.labels import Layer, are_alike, varying
from tersely.shrinking.graph.program import argument, given, operator_name, shape_of
from tersely.shrinking.operators.pointwise import tie_operands
from tersely.shrinking.operators.reading import (
    Reader,
    alike_in_rows,
    held_by_all_keys,
    read_positions,
    sum_where_zero,
    tie_columns,
    uses_of,
    values_along,
    vector,
)

GROUPED = frozenset(["_grouped_mm", "grouped_mm_fallback"])
"""Products of runs of rows with one matrix each of a stack; the second is from transformers."""

_STACKED = 3

NAMES = frozenset(["linear", "addmm", "mm", "matmul", "bmm", "baddbmm", "dot", "mv"])


def trace_product(trace: Trace, node: Node) -> Flow:
    """Sum over the last dimension of the first operand."""
    name = operator_name(node)
    flows = [flow for one in given(node) if (flow := trace.flow(one)) is not None]
    if name == "linear" and flows[1].read is not None:
        return _linear(trace, node, flows[0], flows[1], trace.flow(argument(node, 2)), rows=0)
    scaled = node.kwargs.get("alpha", 1) != 1 or node.kwargs.get("beta", 1) != 1
    if name == "addmm" and flows[2].read is not None and not scaled:
        return _linear(trace, node, flows[1], flows[2], flows[0], rows=1)
    if name == "baddbmm":
        return _added(trace, node, *flows)
    if name in ("mm", "matmul", "bmm"):
        first, second = flows
        is_read = _is_weight(second) and first.ndim > 0 and first.read is None
        if is_read or min(first.ndim, second.ndim) > 1:
            return multiply(trace, node, first, second, shape_of(node))
    for flow in flows:
        trace.doubt(flow, f"there is no rule for {name} of these operands")
    return Flow(shape_of(node))


def multiply(
    trace: Trace,
    node: Node,
    first: Flow,
    second: Flow,
    shape: tuple[int, ...],
    *,
    scores: Node | None = None,
    is_plain: bool = True,
) -> Flow:
    """Sum over the last dimension of one operand and the last but one of the other.

    Args:
        trace: the walk.
        node: the operator.
        first: an operand with at least two dimensions, or before a matrix with one.
        second: the other.
        shape: of the product.
        scores: the operator that makes the first operand; usual: of the node's first argument.
        is_plain: whether the sum is over the last dimension of that operator's result.
    """
    if _is_weight(second) and first.read is None:
        return _linear(trace, node, first, second, None, rows=1, shape=shape)
    if not trace.has_values:
        return _tied(trace, node, first, second, shape, scores or arguments(node)[0])
    product = _activations(trace, first, second, shape)
    # In training, dropout may remove some of the weights.
    held = None if trace.is_training or not is_plain else held_by_all_keys(second.constant)
    if held is not None and _sums_to_one(scores or arguments(node)[0]):
        known, held = product.known(), aligned(held, len(shape))
        product = attrs.evolve(product, constant=torch.where(known.isnan(), held, known))
    return product


def _added(trace: Trace, node: Node, added: Flow, first: Flow, second: Flow) -> Flow:
    """Add a tensor to a product of stacks of matrices."""
    shape = shape_of(node)
    product = multiply(trace, node, first, second, shape, scores=arguments(node)[1])
    layers = tie_operands(trace, [added, product], shape, "baddbmm")
    if not trace.has_values:
        return Flow(shape, layers)
    both = (aligned(added.known(), len(shape)) == 0) & (product.known() == 0)
    return Flow(shape, layers, settle(torch.where(both, 0.0, torch.nan).to(torch.float64)))


def _is_weight(flow: Flow) -> bool:
    return flow.read is not None and len(flow.shape[:-1]) == 1


def _linear(
    trace: Trace,
    node: Node,
    x: Flow,
    weight: Flow,
    bias: Flow | None,
    *,
    rows: int,
    shape: tuple[int, ...] | None = None,
) -> Flow:
    columns = 1 - rows
    both = [layer for layer in weight.layers if len(varying(layer)) > 1]
    for layer in both:
        trace.labels.pin(layer, "its rows and columns are cut together")
    positions = vector(trace, x, x.ndim - 1)
    tie_columns(trace, _reader_name(weight, node), positions, _own(trace, weight, columns))
    outputs = _own(trace, weight, rows)
    if weight.name is not None:
        trace.makers[weight.name] = outputs
    constant = None
    shape = shape_of(node) if shape is None else shape
    if trace.has_values:
        held = values_along(x, x.ndim - 1)
        reads, depends = uses_of(weight, held.isnan(), rows)

        def sums() -> Tensor:
            return (weight.values() if rows == 0 else weight.values().T).double()

        what = _reader_name(weight, node)
        reader = Reader(what, weight, bias, sums, ~reads, sees_alike=True)
        read_positions(trace, reader, positions, held)
        constant = _linear_constant(weight, held, ~depends, bias, rows)
        constant = None if constant is None else settle(aligned(constant, len(shape)))
    if bias is not None:
        if bias.ndim > 1:
            trace.pin(bias, "it is added to a product")
        trace.labels.tie(outputs, _own(trace, bias, bias.ndim - 1))
    passing = [layer for layer in x.layers if layer.shape[-1] == 1]
    own = outputs.reshape((1,) * (len(shape) - 1) + (-1,))
    layers = [*passing, own] if bool((own != 0).any()) else passing
    return Flow(shape, tuple(layers), constant)


def _own(trace: Trace, flow: Flow, dim: int) -> Layer:
    """Labels along one dimension of a weight; zeros if it has none there."""
    own = [layer for layer in flow.layers if varying(layer) == (dim,)]
    found = trace.labels.joined(own)
    if found is None:
        return torch.zeros(flow.shape[dim], dtype=torch.int64)
    return found.reshape(-1)


def _linear_constant(
    weight: Flow, held: Tensor, fixed: Tensor, bias: Flow | None, rows: int
) -> Tensor | None:
    """Return the constants of outputs that do not depend on the input."""
    if not bool(fixed.any()):
        return None
    result = torch.zeros(len(fixed), dtype=torch.float64)
    known = (held.nan_to_num(0.0) != 0).nonzero().reshape(-1)
    if known.numel():
        result = weight.values().index_select(1 - rows, known).to(torch.float64)
        result = (result if rows == 0 else result.T) @ held[known]
    if bias is not None:
        result = result + bias.known().reshape(-1)
    return torch.where(fixed, result, torch.nan)


def _activations(trace: Trace, first: Flow, second: Flow, shape: tuple[int, ...]) -> Flow:
    """Multiply activations: dimensions before the last two meet elementwise (heads)."""
    ndim = len(shape)
    first = alike_in_rows(trace, first, first.ndim - 1, first.ndim - 2)
    second = alike_in_rows(trace, second, second.ndim - 2, second.ndim - 1)
    sum_where_zero(trace, first, second, -2, "a product of activations sums over it")
    left = _batched(trace, first, ndim, ndim - 1)
    right = _batched(trace, second, ndim, ndim - 2)
    sums = _meeting(trace, left, right, ndim)
    outer_left = [x for x in left.layers if x.shape[-2] > 1]
    outer_right = [x for x in right.layers if x.shape[-1] > 1]
    return Flow(shape, (*sums, *outer_left, *outer_right), _product_constant(first, second, ndim))


def _tied(
    trace: Trace,
    node: Node,
    first: Flow,
    second: Flow,
    shape: tuple[int, ...],
    scores: Node,
) -> Flow:
    """Tie what is summed over on both sides; what a score was summed over also to its values."""
    ndim = len(shape)
    left, right = ([aligned(layer, ndim) for layer in flow.layers] for flow in (first, second))
    summed = trace.labels.joined([layer for layer in left if layer.shape[-2] == 1])
    other = trace.labels.joined([layer for layer in right if layer.shape[-1] == 1])
    if summed is not None and other is not None:
        trace.labels.tie(summed, other.transpose(-1, -2))
        trace.scored[node] = summed
    values = trace.labels.joined([layer for layer in right if layer.shape[-2] == 1])
    scored = trace.scored.get(scores)
    if values is not None and scored is not None and are_alike(scored, values):
        trace.labels.tie(scored, values)
    rows = [layer for layer in left if layer.shape[-2] > 1]
    columns = [] if values is None else [values]
    return Flow(shape, (*(x for x in rows if x.shape[-1] == 1), *columns))


def _batched(trace: Trace, flow: Flow, ndim: int, summed: int) -> Flow:
    """A flow with as many dimensions as the product, in which the summed dimension goes whole."""
    shape = (1,) * (ndim - flow.ndim) + flow.shape
    layers = []
    for layer in flow.layers:
        spread = aligned(layer, ndim)
        if varying(spread) != (summed,):
            layers.append(trace.labels.tie_along(spread, [summed]))
    return Flow(shape, tuple(layers))


def _meeting(trace: Trace, left: Flow, right: Flow, ndim: int) -> tuple[Layer, ...]:
    """Tie the batch dimensions of two operands.

    One that also depends on an outer dimension loses a batch position with all of it.
    """
    batch = list(range(ndim - 2))
    flows = []
    covered = False
    for flow in (left, right):
        layers = []
        for layer in flow.layers:
            inner = [d for d in (ndim - 2, ndim - 1) if layer.shape[d] > 1]
            if not any(layer.shape[d] > 1 for d in batch):
                continue
            covered |= bool(inner)
            layers.append(trace.labels.whole(layer, inner))
        flows.append(Flow((*flow.shape[: ndim - 2], 1, 1), tuple(layers)))
    size = tuple(max(a.shape[d], b.shape[d]) for a, b in [flows] for d in range(ndim - 2))
    met = tie_operands(trace, flows, (*size, 1, 1), "a product of activations")
    return () if covered else met


def _product_constant(first: Flow, second: Flow, ndim: int) -> Tensor | None:
    """Zero where one factor of every term is zero."""
    if first.constant is None and second.constant is None:
        return None
    left, right = (first.known() != 0), (second.known() != 0)
    size = max(left.shape[-1], right.shape[-2])
    left = left.expand(*left.shape[:-1], size).to(torch.float32)
    right = right.expand(*right.shape[:-2], size, right.shape[-1]).to(torch.float32)
    result = torch.where(torch.matmul(left, right) == 0, 0.0, torch.nan)
    return settle(aligned(result, ndim))


def _sums_to_one(node: Node) -> bool:
    """Tell whether values along the last dimension are softmax weights."""
    name = operator_name(node)
    if name in ("softmax", "_softmax"):
        return given(node)[1] in (-1, len(shape_of(node)) - 1)
    if name not in _PASSING or not (inputs := arguments(node)):
        return False
    before, after = shape_of(inputs[0]), shape_of(node)
    return before[-1:] == after[-1:] and _sums_to_one(inputs[0])


_PASSING = frozenset(
    ["dropout", "to", "_to_copy", "type_as", "clone", "contiguous", "detach", "view", "reshape"]
)
"""Operators that keep rows of one length."""


def trace_grouped(trace: Trace, node: Node) -> Flow:
    """Multiply each row by its expert's matrix: a column is removed in all experts at once."""
    x, weight = trace.tensor(given(node)[0]), trace.tensor(given(node)[1])
    shape = shape_of(node)
    if weight.read is None or weight.ndim != _STACKED or x.ndim != _STACKED - 1:
        for flow in (x, weight):
            trace.doubt(flow, f"there is no rule for {operator_name(node)} of these operands")
        return Flow(shape)
    trace.pin(weight, "the input chooses experts", (0,))
    trace.pin(x, "the input chooses experts", (0,))
    positions = vector(trace, x, 1)
    trace.labels.tie(positions, _own(trace, weight, 1))
    outputs = _own(trace, weight, 2)
    constant = None
    if trace.has_values:
        values, held = weight.values(), values_along(x, 1)
        zeros = ~values.any(2).any(0)
        what = _reader_name(weight, node)
        reader = Reader(what, weight, None, values.double, zeros, sees_alike=True)
        read_positions(trace, reader, positions, held)
        none = ~values[:, held != 0].any(1).any(0)
        constant = settle(torch.where(none, 0.0, torch.nan).to(torch.float64)[None])
    return Flow(shape, (outputs[None],) if bool((outputs != 0).any()) else (), constant)


def _reader_name(weight: Flow, node: Node) -> str:
    name = weight.name or operator_name(node)
    return name.rpartition(".")[0] or name
