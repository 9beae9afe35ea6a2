"""A graph without what its readers fill in: defaults, shapes in between, names of nodes."""

from __future__ import annotations

import onnx
import onnx_ir as ir


def leave_out_known(graph: ir.Graph, *, opset: int) -> None:
    """Take out what readers fill in themselves; of a small network it is a third of the file.

    Attributes with the operator's default, names of nodes (values keep theirs), and the types and
    shapes of what nodes compute, which follow from the inputs.

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
        # The stored tensor has both; what we note of a layout is written beside its type.
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
