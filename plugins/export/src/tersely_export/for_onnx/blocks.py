"""Blocks of a weight of more than two dimensions, read in place."""

from __future__ import annotations

from collections.abc import Sequence

import numpy
import onnx_ir as ir

from tersely_export.for_onnx.graph import (
    Editor,
    constant_of,
    input_of,
    nodes_of,
    producer_of,
    stored,
)

_AROUND = ("Reshape", "Transpose", "Reshape")
_COPY = "Identity"


def read_blocks_in_place(graph: ir.Graph) -> None:
    """Read blocks that are runs along one dimension by an operator that has them.

    An exported program makes one row of each block, reads the rows and puts them back. In ONNX,
    DequantizeLinear reads runs along one dimension, with a scale for each index of the others.
    Grouped transposed convolutions have them: an output channel is a run of the inputs.

    Args:
        graph: the graph, before constants are folded.
    """
    for node in nodes_of(graph, "DequantizeLinear"):
        before, after = _before(node), _after(node)
        if before is None or after is None:
            continue
        weight, split = before
        shape = [count * length for count, length in split]
        axis = _axis(split)
        scale, zero = constant_of(node.inputs[1]), constant_of(input_of(node, 2))
        if axis is None or scale is None or list(weight.shape or ()) != shape:
            continue
        made, name = Editor(graph, after), weight.name or "weight"
        parts = [
            made.store(f"{name}_{part}", _spread(one, split, axis))
            for part, one in (("scale", scale), ("zero_point", zero))
            if one is not None
        ]
        made.replace(
            made.add("DequantizeLinear", weight, *parts, axis=axis, block_size=split[axis][1])
        )


def _before(read: ir.Node) -> tuple[ir.Value, Sequence[tuple[int, int]]] | None:
    """Return the weight whose blocks become rows, and of each dimension how many and how long."""
    value, node = read.inputs[0], None
    for op_type in reversed(_AROUND):
        node = _producer(value, op_type)
        if node is None:
            return None
        value = node.inputs[0]
    weight = stored(value)
    split = None if node is None else constant_of(node.inputs[1])
    if weight is None or split is None or len(split) % 2:
        return None
    return weight, [(int(one), int(other)) for one, other in split.reshape(-1, 2)]


def _after(read: ir.Node) -> ir.Node | None:
    """Return the last of the nodes that put rows back into blocks."""
    node = read
    for op_type in _AROUND:
        reader = _reader(node, op_type)
        if reader is None:
            return None
        node = reader
    return node


def _producer(value: ir.Value | None, op_type: str) -> ir.Node | None:
    node = producer_of(value, op_type, _COPY)
    return _producer(node.inputs[0], op_type) if node and node.op_type == _COPY else node


def _reader(node: ir.Node, op_type: str) -> ir.Node | None:
    uses = list(node.outputs[0].uses())
    found = uses[0].node if len(uses) == 1 else None
    if found is not None and found.op_type == _COPY:
        return _reader(found, op_type)
    return found if found is not None and found.op_type == op_type else None


def _axis(split: Sequence[tuple[int, int]]) -> int | None:
    runs = [dim for dim, (count, length) in enumerate(split) if count > 1 and length > 1]
    return runs[0] if len(runs) == 1 else None


def _spread(values: numpy.ndarray, split: Sequence[tuple[int, int]], axis: int) -> numpy.ndarray:
    """Return one value for each index of all dimensions but the one with runs."""
    blocks = values.reshape([count for count, _ in split])
    whole = [count if dim == axis else count * length for dim, (count, length) in enumerate(split)]
    return numpy.ascontiguousarray(numpy.broadcast_to(blocks, whole))
