"""Rules of convolutions: plain, grouped, depthwise and transposed."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

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


@attrs.frozen(eq=False)
class _Convolution:
    """A convolution under way through its rules.

    Attributes:
        trace: what is known of the model.
        node: the operator.
        x: the input.
        weight: shape (rows, columns, *kernel).
        bias: shape (output channels,), or None.
        inputs: labels of the input channels.
        channel: the dimension of ``x`` that counts channels.
    """

    trace: Trace
    node: Node
    x: Flow
    weight: Flow
    bias: Flow | None
    inputs: Layer
    channel: int

    @property
    def name(self) -> str:
        """The module's name, or the operator's where its weight is no parameter."""
        name = self.weight.name or operator_name(self.node)
        return name.rpartition(".")[0] or name

    @property
    def groups(self) -> int:
        """How many groups of channels have kernels of their own."""
        return groups_of(self.node)

    @property
    def is_transposed(self) -> bool:
        """Whether rows are inputs and columns outputs."""
        return "transpose" in operator_name(self.node)

    def along(self, dim: int) -> Layer:
        """Return the labels of the weight's rows, dimension 0, or of its columns, dimension 1."""
        return vector(self.trace, Flow(self.weight.shape, _only(self.weight, dim)), dim)

    def read(self, sums: Callable[[], Tensor], zeros: Tensor) -> None:
        """Let positions of the input go that nothing reads.

        Args:
            sums: returns the sum of each kernel, shape (outputs, inputs), float64.
            zeros: shape (inputs,), bool, whether all kernels of an input are zero.
        """
        sees_alike = not self.is_transposed and is_unpadded(self.node)
        reader = Reader(self.name, self.weight, self.bias, sums, zeros, sees_alike=sees_alike)
        read_positions(self.trace, reader, self.inputs, values_along(self.x, self.channel))


def trace_convolution(trace: Trace, node: Node) -> Flow:
    """Tie rows with outputs and columns with inputs; groups are removed or lose equally many."""
    x, weight = trace.tensor(given(node)[0]), trace.tensor(given(node)[1])
    bias = trace.flow(argument(node, 2, "bias"))
    shape, spatial = shape_of(node), spatial_of(node)
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
    this = _Convolution(trace, node, x, weight, bias, inputs, channel)
    outputs = _plain(this) if this.groups == 1 else _grouped(this)
    if weight.name is not None:
        trace.makers[weight.name] = outputs
    if bias is not None:
        trace.labels.tie(outputs, vector(trace, bias, 0))
    out_channel = len(shape) - spatial - 1
    own = outputs.reshape([-1 if d == out_channel else 1 for d in range(len(shape))])
    batch = [layer for layer in x.layers if layer.shape[channel] == 1]
    if not is_pointwise:
        batch = [x for x in batch if all(x.shape[d] == 1 for d in range(channel, x.ndim))]
    constant = _constant(this) if trace.has_values else None
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


def _plain(this: _Convolution) -> Layer:
    trace, weight = this.trace, this.weight
    rows, columns = (1, 0) if this.is_transposed else (0, 1)
    tie_columns(trace, this.name, this.inputs, this.along(columns))
    outputs = this.along(rows)
    for layer in weight.layers:
        if len(varying(layer)) > 1:
            trace.labels.pin(layer, "its rows and columns are cut together")
    if trace.has_values:
        this.read(lambda: _sums(weight), ~_used(trace, weight).any(rows))
    return outputs


def _grouped(this: _Convolution) -> Layer:
    labels, inputs, groups = this.trace.labels, this.inputs, this.groups
    if not this.trace.has_values:
        return _equally(this)
    has_many = inputs.numel() > groups
    if has_many and not this.is_transposed and this.weight.name is not None:
        return _fibres(this)
    if has_many and this.is_transposed:  # all groups lose the same outputs
        labels.tie(inputs, this.along(0))
        _read_in_groups(this)
        return this.along(1).repeat(groups)
    first = this.along(0)
    labels.pin(this.along(1), "columns that groups share")
    own = labels.tie_along(inputs.view(groups, -1), [1])
    labels.tie(own, labels.tie_along(first.view(groups, -1), [1]))
    if this.is_transposed:
        return own.expand(groups, this.weight.shape[1]).reshape(-1)
    return first


def _equally(this: _Convolution) -> Layer:
    """Tie one channel of each group with it; larger groups lose equally many on both sides."""
    labels, inputs, groups = this.trace.labels, this.inputs, this.groups
    first, second = this.along(0), this.along(1)
    outputs = labels.new([groups * second.numel()]) if this.is_transposed else first
    if outputs.numel() == inputs.numel() == groups:
        labels.tie(outputs, inputs)
        return outputs
    if this.is_transposed:  # every group has rows of its own, and columns that all groups share
        labels.tie(outputs.view(groups, -1), second.view(1, -1))
        labels.tie(inputs, first)
    for channels in (inputs, outputs):
        labels.constrain(EqualParts(channels.view(groups, -1), may_vanish=False))
    return outputs


def _fibres(this: _Convolution) -> Layer:
    """Let each group lose inputs and outputs of its own, equally many in all groups."""
    trace, weight, groups = this.trace, this.weight, this.groups
    rows = this.along(0)
    trace.labels.constrain(EqualParts(rows.view(groups, -1), may_vanish=False))
    per_row = this.inputs.view(groups, -1).repeat_interleave(weight.shape[0] // groups, 0)
    per_row = per_row.reshape(*per_row.shape, *(1,) * (weight.ndim - 2))
    # The columns of each group are removed from its own rows.
    name = weight.name or ""
    known = trace.roots[name]
    old = [layer for layer in known.layers if varying(layer) == (1,)]
    others = [layer for layer in known.layers if len(varying(layer)) > 1]
    for layer in others:
        trace.labels.tie(layer, per_row)
    if not others:
        rest = tuple(layer for layer in known.layers if id(layer) not in {id(one) for one in old})
        trace.roots[name] = Flow(known.shape, (*rest, per_row), read=known.read, name=known.name)
        for user, flow in list(trace.flows.items()):
            if isinstance(flow, Flow) and flow.name == weight.name:
                trace.flows[user] = trace.roots[name]
    _read_in_groups(this)
    return rows


def _read_in_groups(this: _Convolution) -> None:
    """Let each group lose inputs that its outputs do not need, equally many in all groups."""
    groups, width = this.groups, this.inputs.numel() // this.groups
    this.trace.labels.constrain(EqualParts(this.inputs.view(groups, -1), may_vanish=False))

    def arranged(kernels: Tensor) -> Tensor:  # to (groups, outputs, inputs)
        if this.is_transposed:
            return kernels.view(groups, width, -1).transpose(1, 2)
        return kernels.view(groups, -1, width)

    def sums() -> Tensor:
        own = arranged(_sums(this.weight))
        found = torch.zeros(groups, own.shape[1], groups, width, dtype=torch.float64)
        index = torch.arange(groups)
        found[index, :, index] = own
        return found.flatten(2).flatten(0, 1)

    this.read(sums, ~arranged(_used(this.trace, this.weight)).any(1).reshape(-1))


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


def _constant(this: _Convolution) -> Tensor | None:
    """Return the constants of output channels that do not depend on the input."""
    groups, weight = this.groups, this.weight
    held = values_along(this.x, this.channel)
    if this.is_transposed or not (is_unpadded(this.node) or this.trace.is_approximate):
        held = torch.where(held == 0, 0.0, torch.nan)
    used = _used(this.trace, weight)
    if this.is_transposed:
        used = used.reshape(groups, -1, used.shape[1]).transpose(1, 2).flatten(0, 1)
    shape = (groups, used.shape[0] // groups, -1)  # outputs of a group read the same inputs
    per_row = held.view(groups, 1, -1).expand(*shape).reshape(used.shape[0], -1)
    fixed = ~(used & per_row.isnan()).any(1)
    if not bool(fixed.any()):
        return None
    result = torch.zeros(used.shape[0], dtype=torch.float64)
    if bool((held.nan_to_num(0.0) != 0).any()):
        result = (_sums(weight) * per_row.nan_to_num(0.0)).sum(1)
    if this.bias is not None:
        result = result + this.bias.known().reshape(-1)
    return torch.where(fixed, result, torch.nan)
