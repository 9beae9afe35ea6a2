"""Reading and editing an ONNX graph: constants, producers and replaced nodes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy
import onnx_ir as ir

_UNFOLDED = ("Cast", "Concat", "Expand", "Reshape", "Transpose")
_EXPORTER = "pkg."
"""The prefix of the exporter's metadata."""


def constant_of(value: ir.Value | None) -> numpy.ndarray | None:
    """Return the value of a constant, or None if it depends on the inputs.

    Args:
        value: any value of a graph.
    """
    if value is None:
        return None
    if value.const_value is not None:
        return numpy.asarray(value.const_value.numpy())
    node = value.producer()
    if node is None:
        return None
    if node.op_type == "Constant":
        held = next(iter(node.attributes.values())).value
        return numpy.asarray(held.numpy() if hasattr(held, "numpy") else held)
    return _computed(node) if node.op_type in _UNFOLDED else None


def _computed(node: ir.Node) -> numpy.ndarray | None:
    """Return a node's result for constants; torch.onnx only folds small ones."""
    if node.op_type == "Concat":
        parts = [constant_of(one) for one in node.inputs]
        known = [one for one in parts if one is not None]
        axis = number(node, "axis")
        return numpy.concatenate(known, axis) if len(known) == len(parts) else None
    found = constant_of(node.inputs[0])
    if found is None or (node.op_type == "Expand" and found.size != 1):
        return None
    if node.op_type == "Cast":
        return found.astype(ir.DataType(node.attributes["to"].as_int()).numpy())
    if node.op_type == "Transpose":
        return found.transpose(node.attributes["perm"].as_ints())
    if node.op_type == "Reshape":
        shape = constant_of(node.inputs[1])
        return None if shape is None or not shape.all() else found.reshape(shape)
    return found


def producer_of(value: ir.Value | None, *op_types: str) -> ir.Node | None:
    """Return the node that makes a value if it is one of some types, else None.

    Args:
        value: any value of a graph.
        *op_types: the types.
    """
    node = None if value is None else value.producer()
    return node if node is not None and node.op_type in op_types else None


def input_of(node: ir.Node, index: int) -> ir.Value | None:
    """Return an input of a node, or None if it is left out.

    Args:
        node: the node.
        index: the index of the input.
    """
    return node.inputs[index] if len(node.inputs) > index else None


def stored(value: ir.Value | None) -> ir.Value | None:
    """Return a value if it is stored in the model, else None.

    Args:
        value: any value of a graph.
    """
    return value if value is not None and value.is_initializer() else None


def axis_of(node: ir.Node) -> int:
    """Return the axis of a node that quantizes or dequantizes.

    Args:
        node: the node.
    """
    found = node.attributes.get("axis")
    return 1 if found is None else found.as_int()


def number(node: ir.Node, name: str, default: int = 0) -> int:
    """Return an integer attribute of a node.

    Args:
        node: the node.
        name: the attribute's name.
        default: its default.
    """
    found = node.attributes.get(name)
    return default if found is None else found.as_int()


class Editor:
    """Inserts nodes before a node, and stores values; it holds the graph that it edits.

    Args:
        graph: the graph.
        node: the node before which others are inserted.
    """

    def __init__(self, graph: ir.Graph, node: ir.Node) -> None:
        self.graph = graph
        self.node = node

    def add(self, op_type: str, *inputs: ir.Value | None, **attributes: Any) -> ir.Value:
        """Insert a node and return its output.

        Args:
            op_type: the operator.
            *inputs: its inputs.
            **attributes: its attributes.
        """
        made = ir.node(op_type, inputs, attributes)
        self.graph.insert_before(self.node, made)
        return made.outputs[0]

    def store(self, name: str, array: Any, dtype: ir.DataType | None = None) -> ir.Value:
        """Store an array in the model under a free name.

        Args:
            name: the preferred name.
            array: the values.
            dtype: the type, or None for the array's own.
        """
        free = name
        count = 0
        while free in self.graph.initializers:
            count += 1
            free = f"{name}_{count}"
        tensor = (
            ir.Tensor(numpy.asarray(array, order="C"), name=free)
            if dtype is None
            else ir.Tensor(array.astype(dtype.numpy()), dtype=dtype, name=free)
        )
        value = ir.Value(
            name=free,
            shape=ir.Shape(tensor.shape),
            type=ir.TensorType(tensor.dtype),
            const_value=tensor,
        )
        self.graph.register_initializer(value)
        return value

    def replace(self, found: ir.Value) -> None:
        """Replace the node's only output by a value, and remove the node.

        Args:
            found: the value.
        """
        old, name = self.node.outputs[0], self.node.outputs[0].name
        found.shape = old.shape if found.shape is None else found.shape
        found.type = old.type if found.type is None else found.type
        old.replace_all_uses_with(found, replace_graph_outputs=True)
        self.graph.remove(self.node, safe=True)
        # Values keep the names of the program's nodes, which the comparison of layers needs.
        old.name = None
        found.name = name


def nodes_of(graph: ir.Graph, *op_types: str) -> Iterator[ir.Node]:
    """Yield the present nodes of some types.

    Args:
        graph: the graph, which may change during the iteration.
        *op_types: the types.
    """
    for node in list(graph):
        if node.op_type in op_types and node.graph is graph:
            yield node


def remove_unused(graph: ir.Graph) -> None:
    """Remove nodes and stored values that nothing reads.

    Args:
        graph: the graph.
    """
    for node in reversed(list(graph)):
        if not any(out.uses() or out.is_graph_output() for out in node.outputs):
            graph.remove(node, safe=True)
    for value in list(graph.initializers.values()):
        forget_stored(graph, value)


def forget_stored(graph: ir.Graph, value: ir.Value) -> None:
    """Remove a stored value if nothing reads it, so that its memory is freed at once.

    Args:
        graph: the graph.
        value: a stored value.
    """
    if not value.uses() and not value.is_graph_output() and value.name in graph.initializers:
        del graph.initializers[value.name]


def forget_traces(graph: ir.Graph) -> None:
    """Remove the exporter's metadata about the source code of each node.

    It contains local paths and source lines, and is most of a small file.

    Args:
        graph: the graph.
    """
    for node in graph:
        node.metadata_props.clear()
        node.doc_string = None
    graph.metadata_props.clear()
    for value in (*graph.inputs, *graph.outputs, *graph.initializers.values()):
        for name in [name for name in value.metadata_props if name.startswith(_EXPORTER)]:
            del value.metadata_props[name]
