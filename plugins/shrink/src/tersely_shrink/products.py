"""Operations that mix channels, and those among them that use a parameter of no known module."""

from __future__ import annotations

from collections.abc import Iterator

from torch_pruning.ops import OPTYPE

from tersely_shrink.edges import Edges
from tersely_shrink.graph import MODULE_TYPES, Graph, Node

_PRODUCTS = ("Mm", "Bmm", "Addmm", "Baddbmm", "Addbmm", "Mv", "Dot", "Convolution", "Linear")
_MIXERS = ("Softmax", "LogSoftmax", "ScaledDot", "NativeLayerNorm", "NativeGroupNorm", "FusedRms")
_TURNS = ("T", "Transpose", "Permute", "Expand", "View", "UnsafeView", "ReshapeAlias", "Clone")


def loose_products(graph: Graph) -> Iterator[tuple[Node, str]]:
    """Yield every product with a parameter that belongs to no module torch-pruning knows.

    torch-pruning takes it for an elementwise operation, which would tie its input's channels to
    its output's.

    Args:
        graph: the traced model.
    """
    names = {parameter: name for name, parameter in graph.model.named_parameters()}
    for parameter in graph.nodes:
        if parameter.type != OPTYPE.PARAMETER or parameter.module.dim() < 2:  # noqa: PLR2004  # a vector multiplies elementwise
            continue
        waiting, seen = [parameter], set()
        for node in waiting:
            for user in node.outputs:
                if _name(user) in _PRODUCTS and not _is_of_a_module(user):
                    yield (
                        user,
                        f"parameter {names[parameter.module]!r} is multiplied outside of a module "
                        "that torch-pruning knows",
                    )
                elif _name(user) in _TURNS and user not in seen:
                    seen.add(user)
                    waiting.append(user)


def is_mixing(node: Node, edges: Edges) -> bool:
    """Tell whether an operation, not a module, makes every channel depend on others.

    Args:
        node: the operation.
        edges: the ways channels take.
    """
    if _name(node) in _PRODUCTS:
        return not _is_of_a_module(node)
    return _name(node).startswith(_MIXERS) or any(
        edges.is_reduced(node, one) for one in node.inputs
    )


def _is_of_a_module(product: Node) -> bool:
    """Whether a product is a linear layer's own: its turned weight comes from nowhere."""
    return any(_name(one) == "T" and not one.inputs for one in product.inputs)


def _name(node: Node) -> str:
    """Name of an operation without its ending, as in ``View``; empty for a module."""
    if node.type in MODULE_TYPES:
        return ""
    return type(node.grad_fn).__name__.rstrip("0123456789").removesuffix("Backward")
