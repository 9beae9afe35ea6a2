"""Rules of operators that select, sort or sample along some dimensions: labels of others pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from tersely.shrinking.graph.calling import arguments
from tersely.shrinking.graph.flow import Flow, Trace, settle
from tersely.shrinking.graph.labels import Layer, varying
from tersely.shrinking.graph.program import argument, given, operator_name, shape_of
from tersely.shrinking.operators.moving import passed
from tersely.shrinking.operators.pointwise import follow_expanded, tie_operands

SORTS = {"topk": 2, "sort": 1, "argsort": 1, "msort": -1, "cummax": 1, "cummin": 1}
"""Operators that sort along one dimension -> its index among their arguments."""

TRANSFORMS = {
    **dict.fromkeys(("fft_fft", "fft_ifft", "fft_rfft", "fft_irfft", "fft_hfft", "fft_ihfft"), 1),
    **dict.fromkeys(("fft_fft2", "fft_ifft2", "fft_rfft2", "fft_irfft2"), 2),
    **dict.fromkeys(("fft_fftn", "fft_ifftn", "fft_rfftn", "fft_irfftn"), 0),
}
"""Fourier transforms -> the number of last dimensions that they transform by default."""

_SPATIAL = 2
"""The number of dimensions of a batch and its channels."""


def trace_sort(trace: Trace, node: Node) -> Flow | tuple[Flow, ...]:
    """Sort along one dimension, all of which stays; values that are equal along it remain so."""
    name = operator_name(node)
    x = trace.tensor(given(node)[0])
    place = SORTS[name]
    if str(node.target).endswith(".stable"):
        place = -1
    usual = 0 if name == "msort" else -1
    named: Any = argument(node, place, "dim") if place > 0 else node.kwargs.get("dim")
    dim = int(usual if named is None else named) % x.ndim
    layers = beyond(trace, node, x, [dim], f"{name} mixes them")
    same = same_along(x, [dim])
    shapes = [one.shape for one in values_of(node)]
    first = None if name == "argsort" else same
    flows = [Flow(tuple(shape), layers, None if i else first) for i, shape in enumerate(shapes)]
    return tuple(flows) if isinstance(node.meta["val"], list | tuple) else flows[0]


def beyond(
    trace: Trace, node: Node, x: Flow, dims: Sequence[int], reason: str
) -> tuple[Layer, ...]:
    """Return the labels that pass; ties of channels along the dimensions are not known.

    Args:
        trace: the walk.
        node: the operator, of which the result has the operand's number of dimensions.
        x: the operand.
        dims: the dimensions that it picks along, not negative.
        reason: why labels along them stay.
    """
    for layer in x.layers:
        if set(varying(layer)) <= set(dims):
            trace.labels.doubt(layer, reason)
    return passed(trace, node, x, dims, reason)


def values_of(node: Node) -> list[Tensor]:
    """Return the fake tensors of an operator's results.

    Args:
        node: the operator.
    """
    values = node.meta["val"]
    return list(values) if isinstance(values, list | tuple) else [values]


def same_along(x: Flow, dims: Sequence[int]) -> Tensor | None:
    """Return values that are equal for all positions along dimensions.

    Args:
        x: the tensor.
        dims: the dimensions, not negative, along which the result has size 1.
    """
    if x.constant is None:
        return None
    held = x.constant
    for dim in dims:
        first = held.narrow(dim, 0, 1)
        held = torch.where((held == first).all(dim, keepdim=True), first, torch.nan)
    return settle(held)


def trace_gather(trace: Trace, node: Node) -> Flow:
    """Select along one dimension, all of which stays; the index is tied with the result."""
    name = operator_name(node)
    x = trace.tensor(given(node)[0])
    place = 1 if name == "gather" else 2
    index = trace.tensor(given(node)[2 if name == "gather" else 1])
    dim = argument(node, place, "dim")
    shape = shape_of(node)
    if dim is None or index.ndim != x.ndim:
        return doubtful(trace, node)
    if trace.has_values:
        follow_expanded(trace, node)
        index = trace.tensor(given(node)[2 if name == "gather" else 1])
    dim = int(dim) % x.ndim
    flows = []
    for flow in (x, index):
        layers = beyond(trace, node, flow, [dim], f"{name} picks among them")
        size = [1 if d == dim else size for d, size in enumerate(flow.shape)]
        flows.append(Flow(tuple(size), layers))
    if name == "gather" and any(
        a != b for d, (a, b) in enumerate(zip(x.shape, index.shape, strict=True)) if d != dim
    ):
        return doubtful(trace, node)
    layers = tie_operands(trace, flows, shape, name)
    return Flow(shape, layers, same_along(x, [dim]))


PUTS = frozenset(["index_add", "index_copy", "scatter", "scatter_add", "scatter_reduce"])


def trace_put(trace: Trace, node: Node) -> Flow:
    """Write or add values at indices along one dimension, all of which stays."""
    name = operator_name(node)
    x, dim = trace.tensor(given(node)[0]), int(given(node)[1]) % max(1, len(shape_of(node)))
    if trace.has_values:
        follow_expanded(trace, node)
    index, values = (trace.flow(one) for one in given(node)[2:4])
    sizes = [flow.shape[:dim] + flow.shape[dim + 1 :] for flow in (x, values) if flow is not None]
    if index is None or any(size != sizes[0] for size in sizes):
        return doubtful(trace, node)
    operands = [x] if values is None else [x, values]
    if index.ndim == x.ndim and name not in ("index_add", "index_copy"):
        operands.append(index)
    flows = []
    for flow in operands:
        layers = beyond(trace, node, flow, [dim], f"{name} puts values along them")
        size = [1 if d == dim else size for d, size in enumerate(flow.shape)]
        flows.append(Flow(tuple(size), layers))
    layers = tie_operands(trace, flows, tuple(flows[0].shape), name)
    zeros = [zero_along(flow, [dim]) for flow in operands if flow is not index]
    constant = None
    if values is not None and all(zero is not None for zero in zeros):
        both = [(zero == 0).expand(flows[0].shape) for zero in zeros if zero is not None]
        constant = settle(torch.where(torch.stack(both).all(0), 0.0, torch.nan).double())
    return Flow(shape_of(node), layers, constant)


def doubtful(trace: Trace, node: Node) -> Flow:
    """Keep everything that an operator reads, since no rule covers these operands.

    Args:
        trace: the walk.
        node: the operator.
    """
    for one in arguments(node):
        if (flow := trace.flow(one)) is not None:
            trace.doubt(flow, f"there is no rule for {operator_name(node)} of these operands")
    return Flow(shape_of(node))


def trace_sampled(trace: Trace, node: Node) -> Flow:
    """Sample positions of each channel by a grid; a channel of zeros stays zero."""
    x, grid = (trace.tensor(one) for one in given(node)[:2])
    trace.pin(grid, "grid_sampler looks positions up with it")
    layers = passed(trace, node, x, range(_SPATIAL, x.ndim), "grid_sampler mixes positions")
    return Flow(shape_of(node), layers, zero_along(x, range(_SPATIAL, x.ndim)))


def trace_transform(trace: Trace, node: Node) -> Flow:
    """Transform dimensions, all of which stay; zeros stay zeros."""
    name = operator_name(node)
    x = trace.tensor(given(node)[0])
    usual = list(range(-TRANSFORMS[name], 0)) or list(range(x.ndim))
    dims = argument(node, 2, "dim", usual)
    dims = [int(dim) % x.ndim for dim in (dims if isinstance(dims, Sequence) else [dims])]
    layers = beyond(trace, node, x, dims, f"{name} mixes them")
    return Flow(shape_of(node), layers, zero_along(x, dims))


def zero_along(x: Flow, dims: Sequence[int]) -> Tensor | None:
    """Return zero where everything along dimensions is zero.

    Args:
        x: the tensor.
        dims: the dimensions, not negative, along which the result has size 1.
    """
    if x.constant is None:
        return None
    zero = (x.constant == 0).all(list(dims), keepdim=True)
    return settle(torch.where(zero, 0.0, torch.nan).to(torch.float64))


def trace_pairs(trace: Trace, node: Node) -> Flow:
    """View complex numbers as pairs along a last dimension, which stays, or the reverse."""
    x = trace.tensor(given(node)[0])
    if operator_name(node) == "view_as_real":
        layers = tuple(layer.unsqueeze(-1) for layer in x.layers)
        constant = None if x.constant is None else x.constant.unsqueeze(-1)
        return Flow(shape_of(node), layers, constant)
    last = x.ndim - 1
    layers = passed(trace, node, x, [last], "a complex number has two parts")
    zero = zero_along(x, [last])
    constant = None if zero is None else zero.squeeze(last)
    return Flow(shape_of(node), tuple(layer.squeeze(last) for layer in layers), constant)


def trace_columns(trace: Trace, node: Node) -> Flow:
    """Move neighbours of each position into channels (``unfold``): those of a channel are tied."""
    x = trace.tensor(given(node)[0])
    channel = x.ndim - 3
    count = _kernel(given(node)[1])
    layers = []
    for layer in passed(trace, node, x, [channel + 1, channel + 2], "im2col mixes positions"):
        flat = layer.flatten(channel + 1)
        layers.append(flat.repeat_interleave(count, channel) if flat.shape[channel] > 1 else flat)
    zero = zero_along(x, [channel + 1, channel + 2])
    constant = None
    if zero is not None:
        flat = zero.flatten(channel + 1)
        constant = flat.repeat_interleave(count, channel) if flat.shape[channel] > 1 else flat
    return Flow(shape_of(node), tuple(layers), settle(constant))


def trace_image(trace: Trace, node: Node) -> Flow:
    """Add neighbours that are in channels (``fold``): a channel is removed if all its own are."""
    x = trace.tensor(given(node)[0])
    channel = x.ndim - 2
    count = _kernel(given(node)[2])
    layers = []
    for layer in passed(trace, node, x, [channel + 1], "col2im adds positions"):
        parts = layer
        if layer.shape[channel] > 1:
            split = _split(layer, channel, count)
            parts = trace.labels.tie_along(split, [channel + 1]).squeeze(channel + 1)
        layers.append(parts.unsqueeze(-1))
    zero = zero_along(x, [channel + 1])
    if zero is not None and zero.shape[channel] > 1:
        split = _split(zero, channel, count)
        zero = torch.where((split == 0).all(channel + 1), 0.0, torch.nan).to(torch.float64)
    constant = None if zero is None else zero.unsqueeze(-1)
    return Flow(shape_of(node), tuple(layers), settle(constant))


def _split(tensor: Tensor, channel: int, count: int) -> Tensor:
    return tensor.reshape(*tensor.shape[:channel], -1, count, *tensor.shape[channel + 1 :])


def _kernel(size: Sequence[int]) -> int:
    count = 1
    for one in size:
        count *= int(one)
    return count


def is_random(node: Node) -> bool:
    """Tell whether an operator draws random numbers, even in evaluation mode.

    Args:
        node: the operator.
    """
    if torch.Tag.nondeterministic_seeded not in getattr(node.target, "tags", ()):
        return False
    named = dict(
        zip((one.name for one in node.target._schema.arguments), node.args, strict=False)  # type: ignore[union-attr]
    )
    named |= node.kwargs
    if named.get("train", named.get("training", None)) is False:
        return False
    chance = named.get("dropout_p", named.get("p"))
    return not (operator_name(node).startswith("scaled_dot") and not chance)


def trace_random(trace: Trace, node: Node) -> Flow | tuple[Flow, ...]:
    """Keep everything that an operator reads that draws a random number for each element."""
    for one in arguments(node):
        if (flow := trace.flow(one)) is not None:
            trace.doubt(flow, f"{operator_name(node)} draws random numbers for each of them")
    flows = [Flow(tuple(one.shape)) for one in values_of(node)]
    return tuple(flows) if isinstance(node.meta["val"], list | tuple) else flows[0]
