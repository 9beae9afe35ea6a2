"""Integer matrix products whose inputs are quantized by each call's own range.

The form of a product, for an input x with scale s and zero point z and a weight w with scale t:

    MatMul((x - z) * s, w * t)    Cast(MatMulInteger(x, w, z)) * s * t
    z differs from row to row     (Cast(MatMulInteger(x, w)) - z * sum of each column of w) * s * t
"""

from __future__ import annotations

import attrs
import numpy
import onnx_ir as ir

from tersely_export.for_onnx.graph import (
    Editor,
    axis_of,
    constant_of,
    input_of,
    nodes_of,
    number,
    producer_of,
    stored,
)

_ENDS = 2


@attrs.frozen(eq=False)
class _Rounded:
    """An input that is quantized by its own range.

    Attributes:
        integers: uint8 or int8.
        scale: 0-dim, or one value for each row.
        zero_point: 0-dim and of the integers' type, or one float for each row.
        is_by_row: whether rows have different zero points.
    """

    integers: ir.Value
    scale: ir.Value
    zero_point: ir.Value | None
    is_by_row: bool = False


def multiply_integers(graph: ir.Graph) -> None:
    """Multiply integers in every product of two dequantized operands.

    Products with fixed scales of inputs are not changed: runtimes recognize those themselves.

    Args:
        graph: the graph.
    """
    for node in nodes_of(graph, "MatMul"):
        read = producer_of(node.inputs[1], "DequantizeLinear")
        transposed = producer_of(node.inputs[1], "Transpose")
        if read is None and transposed is not None:
            read = producer_of(transposed.inputs[0], "DequantizeLinear")
        if read is None or stored(read.inputs[0]) is None or number(read, "block_size"):
            continue
        if read.inputs[0].dtype not in (ir.DataType.INT8, ir.DataType.UINT8):
            continue
        made = Editor(graph, node)
        rounded = _per_call(node.inputs[0]) or _per_token(made, node.inputs[0])
        factor = _factor(made, read, is_transposed=transposed is not None)
        if rounded is None or factor is None:
            continue
        if rounded.is_by_row and _weight_zero(made, read) is not None:
            continue  # each row would have a different sum
        weight = read.inputs[0]
        assert weight is not None  # it is stored
        zero = _weight_zero(made, read)
        if transposed is not None:
            weight = made.add("Transpose", weight, perm=[1, 0])
        product = made.add(
            "MatMulInteger",
            rounded.integers,
            weight,
            None if rounded.is_by_row else rounded.zero_point,
            zero,
        )
        found = made.add("Cast", product, to=ir.DataType.FLOAT)
        if rounded.is_by_row:
            sums = _column_sums(made, read, is_transposed=transposed is not None)
            found = made.add("Sub", found, made.add("Mul", rounded.zero_point, sums))
        # One factor if the scale is one number: runtimes fuse it with the product.
        if rounded.scale.shape is not None and rounded.scale.shape.rank() == 0:
            found = made.add("Mul", found, made.add("Mul", rounded.scale, factor))
        else:
            found = made.add("Mul", made.add("Mul", found, factor), rounded.scale)
        made.replace(found)


def _per_call(value: ir.Value | None) -> _Rounded | None:
    read = producer_of(value, "DequantizeLinear")
    made = None if read is None else producer_of(read.inputs[0], "QuantizeLinear")
    if read is None or made is None or constant_of(read.inputs[1]) is not None:
        return None
    integers, scale = made.outputs[0], read.inputs[1]
    assert scale is not None  # required by the operator
    return _Rounded(integers, scale, input_of(read, 2))


def _per_token(made: Editor, value: ir.Value | None) -> _Rounded | None:
    product = producer_of(value, "Mul")
    shifted = None if product is None else producer_of(product.inputs[0], "Sub")
    levels = None if shifted is None else producer_of(shifted.inputs[0], "Cast")
    integers = None if levels is None else producer_of(levels.inputs[0], "Cast")
    clipped = None if integers is None else producer_of(integers.inputs[0], "Clip")
    added = None if clipped is None else producer_of(clipped.inputs[0], "Add")
    if product is None or shifted is None or integers is None or clipped is None or added is None:
        return None
    zero, scale = shifted.inputs[1], product.inputs[1]
    ends = [end for one in clipped.inputs[1:] if (end := constant_of(one)) is not None]
    if zero is None or scale is None or len(ends) != _ENDS:
        return None
    kind = ir.DataType(integers.attributes["to"].as_int())
    offset = 128 if kind == ir.DataType.INT8 else 0
    if kind not in (ir.DataType.INT8, ir.DataType.UINT8):
        return None
    rounded, known = added.inputs[0], constant_of(zero)
    if known is not None and known.size and (known == known.flat[0]).all():
        fixed = int(known.flat[0]) + offset
        levels_value = made.add("Add", rounded, made.store("zero", numpy.float32(fixed)))
        limits = [made.store("limit", numpy.float32(one.item() + offset)) for one in ends]
        clip = made.add("Clip", levels_value, *limits)
        return _Rounded(
            made.add("Cast", clip, to=ir.DataType.UINT8),
            scale,
            made.store("zero_point", numpy.uint8(fixed)),
        )
    return _Rounded(integers.outputs[0], scale, zero, is_by_row=True)


def _factor(made: Editor, read: ir.Node, *, is_transposed: bool) -> ir.Value | None:
    scale = constant_of(read.inputs[1])
    if scale is None or scale.ndim > 1:
        return None
    columns = 0 if is_transposed else 1
    if scale.ndim == 1 and axis_of(read) != columns:
        return None
    return made.store("factor", scale.astype(numpy.float32))


def _weight_zero(made: Editor, read: ir.Node) -> ir.Value | None:
    zero = constant_of(input_of(read, 2))
    if zero is None or not zero.any():
        return None
    return made.store("weight_zero_point", zero)


def _column_sums(made: Editor, read: ir.Node, *, is_transposed: bool) -> ir.Value:
    values = read.inputs[0].const_value.numpy().astype(numpy.int64)
    sums = values.sum(axis=1 if is_transposed else 0)
    return made.store("column_sums", sums.astype(numpy.float32))
