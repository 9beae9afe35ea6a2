"""The quantized layers of a program, each computed again on the inputs of another runtime."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import attrs
import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import Node

_PRODUCTS = {
    "linear": (0, 1),
    "conv1d": (0, 1),
    "conv2d": (0, 1),
    "conv3d": (0, 1),
    "convolution": (0, 1),
    "conv_transpose1d": (0, 1),
    "conv_transpose2d": (0, 1),
    "conv_transpose3d": (0, 1),
    "mm": (0, 1),
    "matmul": (0, 1),
    "addmm": (1, 2),
    "embedding": (1, 0),
}
"""Operator -> positions of its input and its weight."""

_TURNS = ("permute", "t", "transpose", "view", "_unsafe_view", "reshape", "clone")
_POINTWISE = ("relu", "hardtanh", "clamp")
_SMALLEST = 1e-4
"""The share of the largest value up to which float32 sums in another order may differ."""


@attrs.frozen(eq=False)
class Layer:
    """One operator with a quantized weight.

    Attributes:
        module: the full name of the module that runs it.
        source: its input before rounding.
        result: its output, after rounding if the output is quantized.
        is_product: whether it is a matrix product or a convolution.
        weight: the operator that reads its weight.
        input_scale: the largest scale of its input, or None if that is not quantized.
        output_scale: the scale of its output, or None if that is not quantized.
        tensors: the stored tensors of the program, by placeholder.
    """

    module: str
    source: Node
    result: Node
    is_product: bool
    weight: Node
    input_scale: float | None
    output_scale: float | None
    tensors: dict[str, Tensor]

    def compute(self, given: Tensor) -> Tensor:
        """Return the program's output of the layer for an input.

        Args:
            given: the input before rounding.
        """
        known: dict[Node, Any] = {self.source: given}
        with torch.no_grad():
            found: Tensor = self._value(self.result, known)
        return found

    def step(self, expected: Tensor) -> float:
        """Return the difference that two runtimes may have: one step, or the order of sums.

        Args:
            expected: the layer's output.
        """
        least = max(_SMALLEST, 2 * torch.finfo(expected.dtype).eps)
        sums = least * float(expected.abs().max()) + 1e-12
        if self.output_scale is not None:
            return self.output_scale + sums
        if self.input_scale is None:
            return sums
        # An input that rounds the other way moves an output by one step times its weight.
        weight: Tensor = self._value(self.weight, {})
        return self.input_scale * float(weight.abs().max()) + sums

    def _value(self, node: Any, known: dict[Node, Any]) -> Any:
        if not isinstance(node, Node):
            return node
        if node not in known:
            if node.op == "placeholder":
                known[node] = self.tensors[node.name]
            else:
                args = torch.fx.node.map_arg(node.args, lambda one: self._value(one, known))
                kwargs = torch.fx.node.map_arg(node.kwargs, lambda one: self._value(one, known))
                known[node] = node.target(*args, **kwargs)  # type: ignore[operator]  # a function
        return known[node]


def layers_of(program: ExportedProgram) -> tuple[Layer, ...]:
    """Return the operators whose weights a program stores as integers.

    Args:
        program: the session's exported program.
    """
    return tuple(_layers(program))


def _layers(program: ExportedProgram) -> Iterator[Layer]:
    signature = program.graph_signature
    names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    tensors = {
        place: program.state_dict[name]
        for place, name in names.items()
        if name in program.state_dict
    }
    for node in program.graph.nodes:
        kind = _kind(node)
        if kind not in _PRODUCTS:
            continue
        input_at, weight_at = _PRODUCTS[kind]
        value, weight = node.args[input_at], node.args[weight_at]
        if not (isinstance(weight, Node) and _reads_stored(weight, tensors)):
            continue
        rounding = value if _kind(value).startswith("dequantize") else None
        source = value if rounding is None else rounding.args[0].args[0]
        result = _result(node)
        yield Layer(
            module=_module_of(node),
            source=source,
            result=result,
            is_product=kind != "embedding",
            weight=weight,
            input_scale=None if rounding is None else _scale(rounding, tensors),
            output_scale=None if result is node else _scale(result, tensors),
            tensors=tensors,
        )


def _module_of(node: Node) -> str:
    stack = list((node.meta.get("nn_module_stack") or {"": ("", None)}).values())
    # A second call of a module is named with @ and a number.
    return str(stack[-1][0]).partition("@")[0] or node.name


def _kind(node: Any) -> str:
    target = node.target if isinstance(node, Node) and node.op == "call_function" else None
    if not isinstance(target, torch._ops.OpOverload):
        return ""
    return str(target._schema.name.partition("::")[2])


def _reads_stored(node: Node, tensors: dict[str, Tensor]) -> bool:
    read = _turned(node)
    first = read.args[0] if _kind(read).startswith("dequantize") else None
    return isinstance(first, Node) and _turned(first).name in tensors


def _turned(node: Node) -> Node:
    """Return what is turned, or divided by the factors of its columns."""
    while _kind(node) in (*_TURNS, "div"):
        node = node.args[0]  # type: ignore[assignment]  # the operator's input
    return node


def _result(node: Node) -> Node:
    found = node
    while len(found.users) == 1:
        (following,) = found.users
        kind = _kind(following)
        if kind.startswith("dequantize"):
            return following
        if kind not in _POINTWISE and not kind.startswith("quantize"):
            break
        found = following
    return node


def _scale(read: Node, tensors: dict[str, Tensor]) -> float | None:
    scale = read.args[1]
    if isinstance(scale, (int, float)):
        return float(scale)
    if isinstance(scale, Node) and scale.name in tensors:
        return float(tensors[scale.name].max())
    return None
