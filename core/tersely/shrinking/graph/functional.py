"""An exported graph without writes in place: rewritten where that is simple, or traced again.

``run_decompositions`` traces the whole model a second time, which takes longer than the export.
Most networks write in place nothing at all, or only what nothing else sees (``relu_`` after a norm,
``+=`` of a sum), and have operators that decompositions leave alone. Such a graph is rewritten node
by node.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import Node
from torch.utils._pytree import tree_leaves

_REWRITTEN = frozenset(
    [
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
        "add",
        "sub",
        "mul",
        "div",
        "detach",
    ]
)
"""Operators that may write into their first operand, and then only into that."""

_SHARING = frozenset(
    [
        "view",
        "reshape",
        "flatten",
        "transpose",
        "permute",
        "t",
        "numpy_T",
        "unsqueeze",
        "squeeze",
        "expand",
        "expand_as",
        "select",
        "slice",
        "split",
        "split_with_sizes",
        "chunk",
        "unbind",
        "contiguous",
        "dropout",
        "detach",
        "to",
    ]
)
"""Operators whose result may share their operand's memory, and that shrinking knows."""


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
    exported.graph.eliminate_dead_code()  # as decompositions do
    return exported


def _name(node: Node) -> str:
    target = node.target
    return target._schema.name.split("::")[-1] if _is_operator(node) else str(target)  # type: ignore[union-attr]


def _is_operator(node: Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and node.target.namespace == "aten"


def _writes(node: Node) -> bool:
    return _is_operator(node) and _name(node).endswith("_")


def _is_plain(node: Node) -> bool:
    """Whether decompositions would leave the operator as it is, but for writing and for views."""
    if node.target is operator.getitem:
        return True
    if not _is_operator(node):
        return False
    name = _name(node)
    if _writes(node):
        return name.removesuffix("_") in _REWRITTEN and _keeps_type(node)
    if name == "batch_norm":
        return node.args[5] is False
    if node.target._schema.is_mutable:  # type: ignore[union-attr]
        return False
    return name in _SHARING or not _shares(node)


def _keeps_type(node: Node) -> bool:
    """Whether the operator that does not write would have a result of the same type."""
    written: torch.dtype = node.meta["val"].dtype
    values = [one.meta["val"] for one in node.all_input_nodes]
    types = [one.dtype for one in values if isinstance(one, Tensor)]
    return functools.reduce(torch.promote_types, types, written) is written


def _shares(node: Node) -> bool:
    """Whether the operator's result may share memory with its operands, as far as it declares."""
    if not _is_operator(node) or _name(node) in _SHARING:
        return True
    returns = node.target._schema.returns  # type: ignore[union-attr]
    return any(one.alias_info is not None for one in returns)


def _has_memory_of_others(node: Node) -> bool:
    """Whether a result may share memory, or did when the graph was traced.

    Some operators return views and do not declare it, such as an ``einsum`` that only transposes.
    """
    if _name(node) == "lift_fresh_copy":
        return False  # of a constant, which tracing does not copy
    own = _memory(node)
    return _shares(node) or any(own & _memory(operand) for operand in node.all_input_nodes)


def _memory(node: Node) -> frozenset[int]:
    """The storages of a result, which live as long as the graph."""
    leaves = tree_leaves(node.meta.get("val"))
    return frozenset(one.untyped_storage()._cdata for one in leaves if isinstance(one, Tensor))


def _is_unseen(node: Node) -> bool:
    """Whether nothing that shares memory with what an operator writes is read afterwards."""
    written = node.args[0]
    if not isinstance(written, Node) or written.op != "call_function":
        return False
    others = [one for one in (written, *_before(written.users, node)) if not _writes(one)]
    return not any(_has_memory_of_others(one) for one in others)


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
