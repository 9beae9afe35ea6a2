"""Rules of norms: channels that are normalized together stay."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.fx import Node

from tersely.shrinking.graph.flow import Flow, Trace, settle
from tersely.shrinking.graph.labels import EqualParts, varying
from tersely.shrinking.graph.program import given, operator_name
from tersely.shrinking.operators.moving import passed, whole_along
from tersely.shrinking.operators.pointwise import tie_operands
from tersely.shrinking.operators.reading import values_along

NAMES = frozenset(
    [
        "_native_batch_norm_legit_no_training",
        "batch_norm",
        "native_batch_norm",
        "layer_norm",
        "native_layer_norm",
        "group_norm",
        "native_group_norm",
        "instance_norm",
        "rms_norm",
        "prelu",
        "_prelu_kernel",
    ]
)


def trace_norm(trace: Trace, node: Node) -> Flow | tuple[Flow, ...]:
    """Tie a norm's parameters with the channels that they scale."""
    name = operator_name(node)
    x = trace.tensor(given(node)[0])
    shape = x.shape
    if "layer_norm" in name or name == "rms_norm":
        dims = list(range(x.ndim - len(given(node)[1]), x.ndim))
        if not trace.has_values:
            result = _scaled(trace, node, x, dims)
            return (result, Flow(()), Flow(())) if name.startswith("native") else result
        layers = passed(trace, node, x, dims, f"{name} mixes all of them")
        for one in given(node)[2:]:
            if (flow := trace.flow(one)) is not None:
                trace.pin(flow, f"{name} mixes all of them")
        result = Flow(shape, layers)
        return (result, Flow(()), Flow(())) if name.startswith("native") else result
    channel = 1 if x.ndim > 1 else 0
    if name == "group_norm":
        x = _grouped(trace, x, int(given(node)[1]))
    elif name == "instance_norm":
        trace.pin(x, "instance_norm mixes positions", tuple(range(2, x.ndim)))
    operands = [x]
    scales = [flow for one in given(node)[1:] if (flow := trace.flow(one)) is not None]
    for flow in scales:
        size = [1] * x.ndim
        if flow.shape and flow.shape[0] > 1:
            size[channel] = flow.shape[0]
        layers = tuple(layer.reshape(size) for layer in flow.layers)
        operands.append(Flow(tuple(size), layers))
    layers = tie_operands(trace, operands, shape, name)
    result = Flow(shape, layers, _constant(trace, node, x, channel) if trace.has_values else None)
    is_several = isinstance(node.meta["val"], list | tuple)
    return (result, Flow((0,)), Flow((0,))) if is_several else result


def _scaled(trace: Trace, node: Node, x: Flow, dims: Sequence[int]) -> Flow:
    """Tie what is normalized with scale and shift, or let heads that are normalized go whole."""
    if any(not set(varying(layer)) <= set(dims) for layer in x.layers):
        return Flow(x.shape, whole_along(trace, x, dims).layers)
    scales = [flow for one in given(node)[2:] if (flow := trace.flow(one)) is not None]
    return Flow(x.shape, tie_operands(trace, [x, *scales], x.shape, operator_name(node)))


def groups_of(node: Node) -> int:
    """Return the groups of a group norm.

    Args:
        node: the operator.
    """
    return int(given(node)[1])


def _grouped(trace: Trace, x: Flow, groups: int) -> Flow:
    """Tie the channels of one group."""
    trace.pin(x, "group_norm mixes positions", tuple(range(2, x.ndim)))
    layers = []
    for layer in x.layers:
        if layer.shape[1] > 1:
            split = layer.reshape(layer.shape[0], groups, -1, *layer.shape[2:])
            if not trace.has_values:
                if varying(layer) == (1,) and groups < layer.shape[1]:
                    trace.labels.constrain(EqualParts(layer.reshape(groups, -1)))
                layers.append(layer)
                continue
            tied = trace.labels.tie_along(split, [2])
            layers.append(tied.expand(split.shape).flatten(1, 2))
        else:
            layers.append(layer)
    return Flow(x.shape, tuple(layers), x.constant)


def _constant(trace: Trace, node: Node, x: Flow, channel: int) -> Tensor | None:
    name = operator_name(node)
    held = values_along(x, channel)
    if bool(held.isnan().all()):
        return None

    def at(index: int, default: float) -> Tensor:
        flow = trace.flow(given(node)[index]) if len(given(node)) > index else None
        return torch.tensor(default).double() if flow is None else flow.values().to(torch.float64)

    if "batch_norm" in name:
        if given(node)[3] is None:
            return None
        # In training a constant channel has its own mean subtracted.
        in_training = torch.where(held.isnan(), torch.nan, at(2, 0.0))
        if trace.is_training:
            return _along_channels(in_training, x, channel)
        eps = float(given(node)[-1] if name.startswith("_native") else given(node)[7])
        scaled = (held - at(3, 0.0)) / (at(4, 1.0) + eps).sqrt()
        result = scaled * at(1, 1.0) + at(2, 0.0)
        is_other = ~held.isnan() & (result != in_training)
        trace.differs_in_training |= bool(is_other.any())
    elif name == "group_norm":
        parts = held.view(int(given(node)[1]), -1)
        same = (parts == parts[:, :1]).all(1, keepdim=True).expand(parts.shape).reshape(-1)
        result = torch.where(same, at(3, 0.0), torch.nan)
    elif name == "instance_norm":
        result = torch.where(held.isnan(), torch.nan, at(2, 0.0))
    else:
        slope = at(1, 0.0)
        result = torch.where(held >= 0, held, held * slope)
    return _along_channels(result, x, channel)


def _along_channels(result: Tensor, x: Flow, channel: int) -> Tensor | None:
    result = result.expand(x.shape[channel])
    return settle(result.reshape([-1 if d == channel else 1 for d in range(x.ndim)]))
