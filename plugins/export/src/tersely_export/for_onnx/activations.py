"""Inputs and outputs as runtimes' kernels take them: unsigned, residual additions apart."""

from __future__ import annotations

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

_SHIFT = 128
_MATRIX = 2


def shift_to_unsigned(graph: ir.Graph) -> None:
    """Rewrite int8 inputs and outputs as uint8 with a zero point that is 128 larger.

    The values stay the same; kernels for signed inputs take more than twice as long.

    Args:
        graph: the graph.
    """
    for node in nodes_of(graph, "QuantizeLinear"):
        zero = input_of(node, 2)
        readers = [use.node for use in node.outputs[0].uses()]
        if (
            zero is None
            or _kind(zero, node) != ir.DataType.INT8
            or node.outputs[0].is_graph_output()
        ):
            continue
        if not readers or any(
            one.op_type != "DequantizeLinear" or input_of(one, 2) is None for one in readers
        ):
            continue
        made = Editor(graph, node)
        held = constant_of(zero)
        if held is not None:
            shifted = made.store("zero_point", (held.astype(int) + _SHIFT).astype(numpy.uint8))
        else:
            cast = producer_of(zero, "Cast")
            if cast is None:
                continue
            moved = made.add("Add", cast.inputs[0], made.store("shift", numpy.int32(_SHIFT)))
            shifted = made.add("Cast", moved, to=ir.DataType.UINT8)
        for one in (node, *readers):
            one.replace_input_with(2, shifted)
        node.outputs[0].dtype = ir.DataType.UINT8


def _kind(zero: ir.Value, node: ir.Node) -> ir.DataType | None:
    cast = producer_of(zero, "Cast")
    if cast is not None:
        return ir.DataType(cast.attributes["to"].as_int())
    return zero.dtype or node.outputs[0].dtype


def keep_residuals_apart(graph: ir.Graph) -> None:
    """Rewrite the addition before a layer norm as Sum, so that onnxruntime does not fuse the two.

    The fused kernel takes six times as long as the layer norm.

    Args:
        graph: the graph.
    """
    for node in nodes_of(graph, "LayerNormalization"):
        added = producer_of(node.inputs[0], "Add")
        if added is None or any(constant_of(one) is not None for one in added.inputs):
            continue
        made = Editor(graph, added)
        made.replace(made.add("Sum", *added.inputs))


def keep_biases_apart(graph: ir.Graph) -> None:
    """Rewrite the bias of a matrix product as Sum where an addition would hide the product.

    onnxruntime has integer kernels for MatMul. Before it looks for them, it turns MatMul and Add
    into Gemm if there are two dimensions, or more of fixed sizes, and takes an integer bias for an
    input of an integer addition.

    Args:
        graph: the graph.
    """
    for node in nodes_of(graph, "Add"):
        product = producer_of(node.inputs[0], "MatMul")
        if product is None or not _is_bias(node.inputs[1]):
            continue
        read = producer_of(product.inputs[1], "DequantizeLinear", "Transpose")
        is_float = producer_of(node.inputs[1], "DequantizeLinear") is None
        if read is None or (is_float and not _becomes_gemm(node.outputs[0].shape)):
            continue
        if read.op_type == "Transpose":
            read = producer_of(read.inputs[0], "DequantizeLinear")
        if read is not None and stored(read.inputs[0]) is not None:
            made = Editor(graph, node)
            made.replace(made.add("Sum", *node.inputs))


def _becomes_gemm(shape: ir.Shape | None) -> bool:
    return shape is None or shape.rank() == _MATRIX or shape.is_static()


def _is_bias(value: ir.Value | None) -> bool:
    read = producer_of(value, "DequantizeLinear")
    held = value if read is None else read.inputs[0]
    return stored(held) is not None or constant_of(value) is not None
