"""Weights as runtimes' kernels take them: transposed, packed, without zero points of zero."""

from __future__ import annotations

from collections.abc import Sequence

import numpy
import onnx_ir as ir

from tersely_export.for_onnx.graph import (
    Editor,
    axis_of,
    constant_of,
    forget_stored,
    input_of,
    nodes_of,
    number,
    producer_of,
    stored,
)

_MATRIX = 2
_FOUR_BITS = {ir.DataType.INT4: (-8, 7), ir.DataType.UINT4: (0, 15)}
LAYOUT = "tersely.layout"
"""The metadata key of a stored weight that is transposed."""


def leave_out_zeros(graph: ir.Graph) -> None:
    """Remove zero points that are zero, which some runtimes would subtract anyway.

    Args:
        graph: the graph.
    """
    for node in nodes_of(graph, "DequantizeLinear"):
        zero = constant_of(input_of(node, 2))
        if zero is not None and not zero.any() and stored(node.inputs[0]) is not None:
            node.resize_inputs(2)


def read_along_first(graph: ir.Graph) -> None:
    """Dequantize blocks along the first dimension of a stored matrix without transposing it.

    An exported program only has operators for blocks along the last dimension, and transposes the
    integers before and the floats after them, which cannot be recognized once they are folded.

    Args:
        graph: the graph, before constants are folded.
    """
    for node in nodes_of(graph, "Transpose"):
        read = producer_of(node.inputs[0], "DequantizeLinear")
        turned = None if read is None else producer_of(read.inputs[0], "Transpose")
        if read is None or turned is None or stored(turned.inputs[0]) is None:
            continue
        block = number(read, "block_size")
        if not block or len(read.outputs[0].uses()) != 1 or axis_of(read) != 1:
            continue
        made = Editor(graph, node)
        parts = [
            made.add("Transpose", one, perm=[1, 0])
            for one in (read.inputs[1], input_of(read, 2))
            if one is not None
        ]
        made.replace(
            made.add("DequantizeLinear", turned.inputs[0], *parts, axis=0, block_size=block)
        )


def transpose_stored(graph: ir.Graph) -> None:
    """Store a weight in MatMul's layout if nothing else reads it.

    Runtimes use kernels for blocks of four bits only in this form.

    Args:
        graph: the graph.
    """
    for node in nodes_of(graph, "Transpose"):
        read = producer_of(node.inputs[0], "DequantizeLinear")
        weight = None if read is None else stored(read.inputs[0])
        if read is None or weight is None or weight.const_value is None:
            continue
        if len(read.outputs[0].uses()) != 1 or len(weight.uses()) != 1:
            continue
        values = weight.const_value.numpy()
        if values.ndim != _MATRIX:
            continue
        made, name = Editor(graph, node), weight.name or "weight"
        parts: list[ir.Value | None] = [_transposed(made, weight, values.T)]
        for index in (1, 2):
            part, held = input_of(read, index), constant_of(input_of(read, index))
            if part is None or held is None:
                parts.append(part)
            else:
                part_name = f"{name}_scale" if index == 1 else f"{name}_zero_point"
                parts.append(made.store(part_name, held.T if held.ndim == _MATRIX else held))
        block = number(read, "block_size")
        attributes = {"axis": 1 - axis_of(read)}
        if block:
            attributes["block_size"] = block
        made.replace(made.add("DequantizeLinear", *parts, **attributes))
        graph.remove(read, safe=True)
        forget_stored(graph, weight)


def _transposed(made: Editor, weight: ir.Value, values: numpy.ndarray) -> ir.Value:
    name = weight.name or "weight"
    weight.name = f"{name}_as_it_was"
    found = made.store(name, values)
    found.metadata_props[LAYOUT] = "transposed"
    return found


def pack_four_bits(graph: ir.Graph) -> None:
    """Pack weights of at most four bits, two to a byte.

    Args:
        graph: the graph.
    """
    for node in nodes_of(graph, "DequantizeLinear"):
        weight = stored(node.inputs[0])
        if weight is None or weight.const_value is None or len(weight.uses()) != 1:
            continue
        if weight.const_value.size == 0 or weight.dtype not in (
            ir.DataType.INT8,
            ir.DataType.UINT8,
        ):
            continue
        values = weight.const_value.numpy()
        zero = constant_of(input_of(node, 2))
        dtype = _four_bits([values] if zero is None else [values, zero])
        if dtype is None:
            continue
        made = Editor(graph, node)
        layout = weight.metadata_props.get(LAYOUT)
        name = weight.name or "weight"
        weight.name = f"{name}_unpacked"
        packed = made.store(name, values, dtype)
        if layout is not None:
            packed.metadata_props[LAYOUT] = layout
        node.replace_input_with(0, packed)
        forget_stored(graph, weight)
        if zero is not None:
            node.replace_input_with(2, made.store(f"{name}_zero_point", zero, dtype))


def _four_bits(arrays: Sequence[numpy.ndarray]) -> ir.DataType | None:
    lowest = min(int(one.min()) for one in arrays)
    highest = max(int(one.max()) for one in arrays)
    for dtype, (low, high) in _FOUR_BITS.items():
        if low <= lowest and highest <= high:
            return dtype
    return None


def gather_integers(graph: ir.Graph) -> None:
    """Dequantize only the rows of an embedding that are looked up, not the whole table.

    Args:
        graph: the graph.
    """
    for node in nodes_of(graph, "Gather"):
        read = producer_of(node.inputs[0], "DequantizeLinear")
        if read is None or stored(read.inputs[0]) is None or number(node, "axis"):
            continue
        table, indices = read.inputs[0], node.inputs[1]
        scale, zero = constant_of(read.inputs[1]), constant_of(input_of(read, 2))
        if scale is None or scale.ndim > 1 or number(read, "block_size"):
            continue
        made = Editor(graph, node)
        rows = made.add("Gather", table, indices)
        is_by_row = scale.ndim == 1 and axis_of(read) == 0
        levels = made.add("Cast", rows, to=ir.DataType.FLOAT)
        if zero is not None and zero.any():
            offset = made.store(
                "offset", zero.astype(numpy.float32).reshape(_column(zero, is_by_row))
            )
            if is_by_row:
                offset = made.add("Gather", offset, indices)
            levels = made.add("Sub", levels, offset)
        factor = made.store("factor", scale.reshape(_column(scale, is_by_row)))
        if is_by_row:
            factor = made.add("Gather", factor, indices)
        made.replace(made.add("Mul", levels, factor))


def _column(array: numpy.ndarray, is_by_row: bool) -> tuple[int, ...]:
    return (-1, 1) if is_by_row else array.shape
