"""The rule of gated linear units: a value and its gate are one channel."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.fx import Node

from tersely.shrinking.flow import Flow, Trace, settle
from tersely.shrinking.program import argument, given, shape_of


def trace_glu(trace: Trace, node: Node) -> Flow:
    """Let position i of the first half, the values, go with position i of the second, the gates."""
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
