"""Multiply-accumulate operations of a program before and after shrinking, from shapes alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import attrs
from torch.fx import Node

from tersely.engine.state.cutting import Cut
from tersely.shrinking.graph.flow import Flow, Trace
from tersely.shrinking.graph.program import given, operator_name
from tersely.shrinking.graph.solution import Solution
from tersely.shrinking.operators.convolution import NAME, spatial_of
from tersely.shrinking.operators.recurring import is_recurrent
from tersely.shrinking.proving.predict import shape_after

Shape = tuple[int, ...]


@attrs.frozen(eq=False)
class Sizes:
    """The shapes of a program's tensors, before or after shrinking.

    Attributes:
        trace: the result of the walk.
        solution: the labels that are removed, or None for the shapes before.
        cuts: the cuts of parameters and buffers.
    """

    trace: Trace
    solution: Solution | None = None
    cuts: Mapping[str, Cut] = attrs.field(factory=dict)

    def of(self, value: Any) -> Shape:
        """Return the shape of an operator's argument or result; empty if it is not a tensor.

        Args:
            value: a node, or any other argument of an operator.
        """
        flow = self.trace.flow(value)
        if flow is None:
            return ()
        if self.solution is None:
            return flow.shape
        if flow.name is not None and flow.name in self.cuts:
            return self.cuts[flow.name].after
        return shape_after(self.solution, flow)


def count_operations(sizes: Sizes) -> int:
    """Return the multiply-accumulate operations of one run of a program.

    Counted are convolutions, linear layers, products of matrices and attention, as
    `torch.utils.flop_counter` counts them, and recurrent layers.

    Args:
        sizes: the shapes to count with.
    """
    nodes = sizes.trace.flows
    return sum(_operations(sizes, node) for node in nodes if node.op == "call_function")


def _operations(sizes: Sizes, node: Node) -> int:
    name = operator_name(node)
    if NAME.match(name):
        return _convolution(sizes, node)
    if is_recurrent(node):
        return _recurrent(sizes, node)
    if name == "scaled_dot_product_attention":
        query, key, value = (sizes.of(one) for one in given(node)[:3])
        return math.prod(query[:-1]) * key[-2] * (query[-1] + value[-1])
    first = _PRODUCTS.get(name)
    if first is None or not isinstance(sizes.trace.flows[node], Flow):
        return 0
    return math.prod(sizes.of(node)) * sizes.of(given(node)[first])[-1]


_PRODUCTS = {
    "linear": 0,
    "mm": 0,
    "bmm": 0,
    "matmul": 0,
    "mv": 0,
    "dot": 0,
    "_grouped_mm": 0,
    "grouped_mm_fallback": 0,
    "addmm": 1,
    "baddbmm": 1,
}
"""Matrix products, and the index of the first factor among their arguments."""


def _convolution(sizes: Sizes, node: Node) -> int:
    """Count every weight once for each position of the output, or of the input if transposed."""
    is_transposed = "transpose" in operator_name(node)
    moved = sizes.of(given(node)[0] if is_transposed else node)
    spatial = spatial_of(node)
    positions = math.prod(moved[-spatial:]) * math.prod(moved[: -spatial - 1])
    return positions * math.prod(sizes.of(given(node)[1]))


def _recurrent(sizes: Sizes, node: Node) -> int:
    """Count every weight matrix once for each step of each sequence."""
    matrices = [shape for one in given(node)[2] if len(shape := sizes.of(one)) > 1]
    steps = math.prod(sizes.of(given(node)[0])[:-1])
    return steps * sum(math.prod(shape) for shape in matrices)
