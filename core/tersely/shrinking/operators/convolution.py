"""Rules of convolutions: plain, grouped, depthwise and transposed."""

from __future__ import annotations

import re
from collections.abc import Sequence

import attrs
import torch
from torch import Tensor
from torch.fx import Node

from tersely.shrinking.graph.flow import Flow, Trace, settle
from tersely.shrinking.graph.labels import EqualParts, Layer, varying
from tersely.shrinking.graph.program import argument, given, operator_name, shape_of
from tersely.shrinking.operators.moving import passed
from tersely.shrinking.operators.reading import (
    Reader,
    read_positions,
    tie_columns,
    values_along,
    vector,
)

NAME = re.compile(r"conv(_transpose)?([123])d\Z")


def spatial_of(node: Node) -> int:
    """Return the number of spatial dimensions of a convolution.

    Args:
        node: the operator.
    """
    return next(number for number in (1, 2, 3) if f"{number}d" in operator_name(node))


def groups_of(node: Node) -> int:
    """Return the groups of a convolution.

    Args:
        node: the operator.
    """
    return int(argument(node, 6, "groups", 1))


def trace_convolution(trace: Trace, node: Node) -> Flow:
    """Tie rows with outputs and columns with inputs; groups are removed or lose equally many."""
    x, weight = trace.tensor(given(node)[0]), trace.tensor(given(node)[1])
    bias = trace.flow(argument(node, 2, "bias"))
    shape, groups = shape_of(node), groups_of(node)
    spatial = spatial_of(node)
    channel = x.ndim - spatial - 1
    if not (is_pointwise := _is_pointwise(node, weight)):
        dims = range(channel + 1, x.ndim)
        x = attrs.evolve(x, layers=passed(trace, node, x, dims, "a convolution mixes positions"))
    trace.pin(weight, "a convolution's kernel", tuple(range(2, weight.ndim)))
    inputs = vector(trace, Flow(x.shape, _on(x, channel)), channel)
    if weight.read is None:
        for one in (x, weight):
            trace.doubt(one, "a convolution's weight is computed from the input")
        return Flow(shape)
    transposed = "transpose" in operator_name(node)
    if groups == 1:
        outputs = _plain(trace, node, x, weight, bias, inputs, channel, transposed=transposed)
    else:
        outputs = _grouped(trace, node, x, weight, bias, inputs, channel, groups)
    if weight.name is not None:
        trace.makers[weight.name] = outputs
    if bias is not None:
        trace.labels.tie(outputs, vector(trace, bias, 0))
    out_channel = len(shape) - spatial - 1
    own = outputs.reshape([-1 if d == out_channel else 1 for d in range(len(shape))])
    batch = [layer for layer in x.layers if layer.shape[channel] == 1]
    if not is_pointwise:
        batch = [x for x in batch if all(x.shape[d] == 1 for d in range(channel, x.ndim))]
    constant = _constant(trace, node, x, weight, bias, channel) if trace.has_values else None
    if constant is not None:
        constant = settle(constant.reshape(own.shape))
    layers = (*batch, own) if bool((own != 0).any()) else tuple(batch)
    return Flow(shape, layers, constant)


def _is_pointwise(node: Node, weight: Flow) -> bool:
    """Tell whether each position of the result reads a single position, so that positions pass."""
    strides = argument(node, 3, "stride", 1)
    strides = [strides] if isinstance(strides, int) else strides
    return is_unpadded(node) and {*strides, *weight.shape[2:]} == {1}


def _on(flow: Flow, channel: int) -> tuple[Layer, ...]:
    return tuple(x for x in flow.layers if x.shape[channel] > 1)


def _plain(
    trace: Trace,
    node: Node,
    x: Flow,
    weight: Flow,
    bias: Flow | None,
    inputs: Layer,
    channel: int,
    *,
    transposed: bool,
) -> Layer:
    rows, columns = (1, 0) if transposed else (0, 1)
    own = vector(trace, Flow(weight.shape, _only(weight, columns)), columns)
    tie_columns(trace, _name(weight, node), inputs, own)
    outputs = vector(trace, Flow(weight.shape, _only(weight, rows)), rows)
    for layer in weight.layers:
        if len(varying(layer)) > 1:
            trace.labels.pin(layer, "its rows and columns are cut together")
    if not trace.has_values:
        return outputs
    reader = Reader(
        _name(weight, node),
        weight,
        bias,
        lambda: _sums(weight),
        ~_used(trace, weight).any(rows),
        sees_alike=not transposed and is_unpadded(node),
    )
    read_positions(trace, reader, inputs, values_along(x, channel))
    return outputs


def _grouped(
    trace: Trace,
    node: Node,
    x: Flow,
    weight: Flow,
    bias: Flow | None,
    inputs: Layer,
    channel: int,
    groups: int,
) -> Layer:
    transposed = "transpose" in operator_name(node)
    per_group = inputs.numel() // groups
    if not trace.has_values:
        return _equally(trace, weight, inputs, groups, transposed=transposed)
    if per_group > 1 and not transposed and weight.name is not None:
        return _fibres(trace, node, x, weight, bias, inputs, channel, groups)
    if per_group > 1 and transposed:  # all groups lose the same outputs
        trace.labels.tie(inputs, vector(trace, Flow(weight.shape, _only(weight, 0)), 0))
        _read_in_groups(trace, node, x, weight, bias, inputs, channel, groups)
        return vector(trace, Flow(weight.shape, _only(weight, 1)), 1).repeat(groups)
    first = vector(trace, Flow(weight.shape, _only(weight, 0)), 0)
    trace.labels.pin(
        vector(trace, Flow(weight.shape, _only(weight, 1)), 1), "columns that groups share"
    )
    labels = trace.labels
    own = labels.tie_along(inputs.view(groups, -1), [1])
    labels.tie(own, labels.tie_along(first.view(groups, -1), [1]))
    if transposed:
        return own.expand(groups, weight.shape[1]).reshape(-1)
    return first


def _equally(trace: Trace, weight: Flow, inputs: Layer, groups: int, *, transposed: bool) -> Layer:
    """Tie one channel of each group with it; larger groups lose equally many on both sides."""
    labels = trace.labels
    first = vector(trace, Flow(weight.shape, _only(weight, 0)), 0)
    second = vector(trace, Flow(weight.shape, _only(weight, 1)), 1)
    outputs = labels.new([groups * second.numel()]) if transposed else first
    if outputs.numel() == inputs.numel() == groups:
        labels.tie(outputs, inputs)
        return outputs
    if transposed:  # every group has rows of its own, and columns that all groups share
        labels.tie(outputs.view(groups, -1), second.view(1, -1))
        labels.tie(inputs, first)
    for channels in (inputs, outputs):
        labels.constrain(EqualParts(channels.view(groups, -1), may_vanish=False))
    return outputs


def _fibres(
    trace: Trace,
    node: Node,
    x: Flow,
    weight: Flow,
    bias: Flow | None,
    inputs: Layer,
    channel: int,
    groups: int,
) -> Layer:
    """Let each group lose inputs and outputs of its own, equally many in all groups."""
    labels = trace.labels
    rows = vector(trace, Flow(weight.shape, _only(weight, 0)), 0)
    labels.constrain(EqualParts(rows.view(groups, -1), may_vanish=False))
    per_row = inputs.view(groups, -1).repeat_interleave(weight.shape[0] // groups, 0)
    per_row = per_row.reshape(*per_row.shape, *(1,) * (weight.ndim - 2))
    # The columns of each group are removed from its own rows.
    name = weight.name or ""
    known = trace.roots[name]
    old = [layer for layer in known.layers if varying(layer) == (1,)]
    others = [layer for layer in known.layers if len(varying(layer)) > 1]
    for layer in others:
        labels.tie(layer, per_row)
    if not others:
        rest = tuple(layer for layer in known.layers if id(layer) not in {id(one) for one in old})
        trace.roots[name] = Flow(known.shape, (*rest, per_row), read=known.read, name=known.name)
        for user, flow in list(trace.flows.items()):
            if isinstance(flow, Flow) and flow.name == weight.name:
                trace.flows[user] = trace.roots[name]
    _read_in_groups(trace, node, x, weight, bias, inputs, channel, groups)
    return rows


def _read_in_groups(
    trace: Trace,
    node: Node,
    x: Flow,
    weight: Flow,
    bias: Flow | None,
    inputs: Layer,
    channel: int,
    groups: int,
) -> None:
    """Let each group lose inputs that its outputs do not need, equally many in all groups."""
    transposed = "transpose" in operator_name(node)
    width = inputs.numel() // groups
    trace.labels.constrain(EqualParts(inputs.view(groups, -1), may_vanish=False))

    def arranged(kernels: Tensor) -> Tensor:  # to (groups, outputs, inputs)
        if transposed:
            return kernels.view(groups, width, -1).transpose(1, 2)
        return kernels.view(groups, -1, width)

    def sums() -> Tensor:
        own = arranged(_sums(weight))
        found = torch.zeros(groups, own.shape[1], groups, width, dtype=torch.float64)
        index = torch.arange(groups)
        found[index, :, index] = own
        return found.flatten(2).flatten(0, 1)

    zeros = ~arranged(_used(trace, weight)).any(1).reshape(-1)
    sees_alike = not transposed and is_unpadded(node)
    reader = Reader(_name(weight, node), weight, bias, sums, zeros, sees_alike=sees_alike)
    read_positions(trace, reader, inputs, values_along(x, channel))


def _used(trace: Trace, weight: Flow) -> Tensor:
    """Return the kernels that are not all zero: bool, the weight's shape without positions."""
    if weight.name not in trace.used:
        trace.used[weight.name] = torch.cat([rows.flatten(2).any(2) for rows in weight.runs()])
    return trace.used[weight.name]


def _sums(weight: Flow) -> Tensor:
    """The sum of each kernel, float64."""
    return weight.values().flatten(2).sum(2, dtype=torch.float64)


def _only(flow: Flow, dim: int) -> tuple[Layer, ...]:
    return tuple(layer for layer in flow.layers if varying(layer) == (dim,))


def is_unpadded(node: Node) -> bool:
    """Tell whether a convolution has no padding, so that it treats all positions the same way.

    Args:
        node: the operator.
    """
    padding = argument(node, 4, "padding", 0)
    if isinstance(padding, str):
        return padding == "valid"
    return not any(padding) if isinstance(padding, Sequence) else padding == 0


def _constant(
    trace: Trace,
    node: Node,
    x: Flow,
    weight: Flow,
    bias: Flow | None,
    channel: int,
) -> Tensor | None:
    """Return the constants of output channels that do not depend on the input."""
    groups, transposed = groups_of(node), "transpose" in operator_name(node)
    held = values_along(x, channel)
    if transposed or not (is_unpadded(node) or trace.is_approximate):
        held = torch.where(held == 0, 0.0, torch.nan)
    used = _used(trace, weight)
    if transposed:
        used = used.reshape(groups, -1, used.shape[1]).transpose(1, 2).flatten(0, 1)
    shape = (groups, used.shape[0] // groups, -1)  # outputs of a group read the same inputs
    per_row = held.view(groups, 1, -1).expand(*shape).reshape(used.shape[0], -1)
    fixed = ~(used & per_row.isnan()).any(1)
    if not bool(fixed.any()):
        return None
    result = torch.zeros(used.shape[0], dtype=torch.float64)
    if bool((held.nan_to_num(0.0) != 0).any()):
        result = (_sums(weight) * per_row.nan_to_num(0.0)).sum(1)
    if bias is not None:
        result = result + bias.known().reshape(-1)
    return torch.where(fixed, result, torch.nan)


def _name(weight: Flow, node: Node) -> str:
    name = weight.name or operator_name(node)
    return name.rpartition(".")[0] or name
