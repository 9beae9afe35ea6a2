"""An exported graph without writes in place: rewritten where that is simple, or traced again.

``run_decompositions`` traces the whole model a second time, which takes longer than the export. A
convolutional network writes in place only what nothing else sees (``relu_`` after a norm, ``+=`` of
a sum), and has operators that decompositions leave alone. Such a graph is rewritten node by node.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable

import torch
from torch.export import ExportedProgram
from torch.fx import Node

_FRESH = frozenset(
    [
        *(
            f"conv{transposed}{number}d"
            for transposed in ("", "_transpose")
            for number in (1, 2, 3)
        ),
        *(f"{kind}_pool{number}d" for kind in ("max", "avg") for number in (1, 2, 3)),
        *(f"adaptive_avg_pool{number}d" for number in (1, 2, 3)),
        "linear",
        "batch_norm",
        "layer_norm",
        "group_norm",
        "softmax",
        "mean",
        "cat",
        "add",
        "sub",
        "mul",
        "div",
        "relu",
        "relu6",
        "gelu",
        "silu",
        "sigmoid",
        "tanh",
        "leaky_relu",
        "elu",
        "hardtanh",
        "hardswish",
        "hardsigmoid",
        "scaled_dot_product_attention",
    ]
)
"""Operators whose result shares no memory with their operands."""

_SHARING = frozenset(
    ["view", "transpose", "permute", "unsqueeze", "flatten", "dropout", "reshape", "contiguous"]
)
"""Operators whose result may share their operand's memory."""


def without_writes(exported: ExportedProgram) -> ExportedProgram:
    """Return the program with no operator that writes into a tensor.

    Args:
        exported: what ``torch.export`` returned; it is rewritten where that is possible.
    """
    nodes = [node for node in exported.graph.nodes if node.op == "call_function"]
    signature = exported.graph_signature
    is_pure = not signature.buffers_to_mutate and not signature.user_inputs_to_mutate
    is_plain = is_pure and all(_is_plain(node) for node in nodes)
    if not is_plain or not all(_is_unseen(node) for node in nodes if _writes(node)):
        decomposed: ExportedProgram = exported.run_decompositions({})
        return decomposed
    for node in nodes:
        if _writes(node):
            _rewrite(exported, node)
    return exported


def _name(node: Node) -> str:
    target = node.target
    return target._schema.name.split("::")[-1] if _is_operator(node) else str(target)  # type: ignore[union-attr]


def _is_operator(node: Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and node.target.namespace == "aten"


def _writes(node: Node) -> bool:
    return _is_operator(node) and _name(node).endswith("_")


def _is_plain(node: Node) -> bool:
    """Whether decompositions would leave the operator as it is, but for writing."""
    if node.target is operator.getitem:
        return True
    if not _is_operator(node):
        return False
    name = _name(node).removesuffix("_") if _writes(node) else _name(node)
    if name == "batch_norm":
        return node.args[5] is False
    return name in _FRESH or (name in _SHARING and not _writes(node))


def _is_unseen(node: Node) -> bool:
    """Whether nothing that shares memory with what an operator writes is read afterwards."""
    written = node.args[0]
    if not isinstance(written, Node) or written.op != "call_function":
        return False
    if _name(written).removesuffix("_") not in _FRESH:
        return False
    return not any(_name(user) in _SHARING for user in _before(written.users, node))


def _before(users: Iterable[Node], node: Node) -> list[Node]:
    return [user for user in users if user < node]


def _rewrite(exported: ExportedProgram, node: Node) -> None:
    """Replace an operator by the one that does not write, and let later ones read its result."""
    packet = getattr(torch.ops.aten, _name(node).removesuffix("_"))
    target = getattr(packet, node.target._overloadname)  # type: ignore[union-attr]
    written = node.args[0]
    assert isinstance(written, Node)  # only such nodes are rewritten
    later = [user for user in written.users if node < user]
    node.target = target
    for user in later:
        user.replace_input_with(written, node)
