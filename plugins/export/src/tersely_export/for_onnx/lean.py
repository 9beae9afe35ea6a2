"""Removing what readers can infer: default attributes, intermediate shapes, names of nodes."""

from __future__ import annotations

import onnx
import onnx_ir as ir


def leave_out_known(graph: ir.Graph, *, opset: int) -> None:
    """Remove what readers can infer, which is a third of a small network's file.

    These are attributes with default values, names of nodes (not of values), and types and shapes
    of intermediate values.

    Args:
        graph: the graph.
        opset: the version of the operators.
    """
    outputs = set(graph.outputs)
    for node in graph:
        node.name = None
        _leave_out_defaults(node, opset)
        for value in node.outputs:
            if value not in outputs:
                value.type = value.shape = None
    for value in graph.initializers.values():
        # The stored tensor has both; notes on its layout are written next to its type.
        if not value.metadata_props:
            value.type = value.shape = None


def _leave_out_defaults(node: ir.Node, opset: int) -> None:
    if node.domain:
        return
    known = onnx.defs.get_schema(node.op_type, opset).attributes
    for name, attribute in list(node.attributes.items()):
        default = known[name].default_value if name in known else onnx.AttributeProto()
        if default.type and ir.serde.deserialize_attribute(default).value == attribute.value:
            del node.attributes[name]
