"""Dimensions that forward makes itself: one position, whatever the sizes of its inputs."""

from __future__ import annotations

from torch.fx import Node

from tersely.shrinking.graph.calling import arguments
from tersely.shrinking.graph.flow import Trace
from tersely.shrinking.graph.program import argument, operator_name, shape_of
from tersely.shrinking.operators.pointwise import is_pointwise


def is_single(trace: Trace, node: Node, dim: int) -> bool:
    """Tell whether a dimension holds one position in every call, unlike a batch of one.

    Args:
        trace: the walk.
        node: a tensor.
        dim: the dimension, not negative.
    """
    waiting = [(node, dim - len(shape_of(node)))]
    seen = set(waiting)
    for one, place in waiting:
        shape = shape_of(one)
        if -place > len(shape) or _has_fixed_shape(trace, one):
            continue
        if shape[place] > 1 or one.op != "call_function":
            return False
        if _is_made(one, place):
            continue
        if not is_pointwise(one):
            return False
        new = [(other, place) for other in arguments(one) if (other, place) not in seen]
        waiting += new
        seen.update(new)
    return True


def _has_fixed_shape(trace: Trace, node: Node) -> bool:
    flow = trace.flow(node)
    return flow is None or (flow.read is not None and node not in trace.sized)


def _is_made(node: Node, place: int) -> bool:
    """Whether an operator makes the dimension, which is counted from the last."""
    ndim = len(shape_of(node))
    if operator_name(node) == "unsqueeze":
        return int(argument(node, 1)) % ndim == place + ndim
    dims, is_kept = reduced_dims(node, ndim)
    return is_kept and place + ndim in dims


def reduced_dims(node: Node, ndim: int) -> tuple[list[int], bool]:
    """Return the dimensions that a reduction reduces, and whether they stay with size 1.

    Args:
        node: the operator.
        ndim: how many dimensions its operand has.
    """
    schema = [one.name for one in node.target._schema.arguments]  # type: ignore[union-attr]
    given = {**dict(zip(schema, node.args, strict=False)), **node.kwargs}
    dims, is_kept = given.get("dim"), bool(given.get("keepdim", False))
    if dims is None or dims == []:
        return list(range(ndim)), is_kept
    return [dim % ndim for dim in ([dims] if isinstance(dims, int) else dims)], is_kept
