"""Where the channels of a tensor are: which dimension counts them at every node of the graph."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import attrs
from torch_pruning.ops import OPTYPE

from tersely_shrink.graph import (
    CHANNELS_FIRST,
    MODULE_TYPES,
    Graph,
    Node,
    arguments_of,
    shape_of,
    signed,
)


@attrs.frozen
class Axis:
    """The channels of one tensor.

    Attributes:
        dim: the dimension that counts them, or None where they lie over several dimensions.
        channels: how many there are.
    """

    dim: int | None
    channels: int


def find_axes(graph: Graph) -> dict[Node, Axis]:
    """Return where the channels leave each node; nodes that have none of a module's are absent.

    Args:
        graph: the traced model.
    """
    axes: dict[Node, Axis] = {}
    for node in _sources_first(graph.nodes):
        found = _axis(graph, node, axes)
        if found is not None:
            axes[node] = found
    return axes


def saved_dims(node: Node) -> tuple[int, ...]:
    """Return the dimensions an operation worked along, counted from the front of its input.

    Args:
        node: an operation with arguments.
    """
    saved = getattr(node.grad_fn, "_saved_dim", ())
    rank = len(input_shape(node))
    dims = saved if isinstance(saved, tuple) else (saved,)
    return tuple(signed(dim) % max(rank, 1) for dim in dims)


def input_shape(node: Node) -> tuple[int, ...]:
    """Return the shape of an operation's first argument."""
    source, output = arguments_of(node)[0]
    return shape_of(source, output)


def is_reduction(node: Node) -> bool:
    """Tell whether an operation takes one value from all along some dimensions."""
    return hasattr(node.grad_fn, "_saved_keepdim") and bool(node.inputs)


def _axis(graph: Graph, node: Node, axes: dict[Node, Axis]) -> Axis | None:
    if node.type in MODULE_TYPES:
        channels = graph.count(graph.leaving(node))
        rank = len(shape_of(node))
        dim = 1 if node.type in CHANNELS_FIRST else rank - 1
        return None if channels is None else Axis(dim, channels)
    known = [(source, axes[source]) for source, _ in arguments_of(node) if source in axes]
    if not known:
        return None
    source, axis = known[0]
    shape = shape_of(node)
    if node.type == OPTYPE.CONCAT and axis.dim is not None:
        return Axis(axis.dim, shape[axis.dim]) if axis.dim in saved_dims(node) else axis
    return _moved(node, axis, before=shape_of(source), after=shape)


def _moved(node: Node, axis: Axis, *, before: Sequence[int], after: Sequence[int]) -> Axis | None:
    if axis.dim is None:
        # Split into several dimensions, as by heads: whole again where one has the old length.
        last = len(after) - 1
        whole = [last, *range(1, last)]
        return attrs.evolve(axis, dim=next((d for d in whole if after[d] == axis.channels), None))
    name = type(node.grad_fn).__name__
    dim: int | None = axis.dim
    if name.startswith("Permute"):
        order = [signed(d) % len(before) for d in node.grad_fn._saved_dims]
        dim = order.index(axis.dim)
    elif name.startswith("Transpose"):
        first, second = (
            signed(d) % len(before) for d in (node.grad_fn._saved_dim0, node.grad_fn._saved_dim1)
        )
        dim = {first: second, second: first}.get(axis.dim, axis.dim)
    elif name.startswith(("Unsqueeze", "Squeeze")) or is_reduction(node):
        dim = _after_lengths(node, axis.dim, before=before, after=after)
    elif node.type == OPTYPE.RESHAPE:
        dim = _after_reshape(axis.dim, before=before, after=after)
    elif node.type == OPTYPE.UNBIND or name.startswith("Select"):
        [gone] = saved_dims(node)
        dim = None if gone == axis.dim else axis.dim - (gone < axis.dim)
    elif len(after) > len(before):
        dim = axis.dim + len(after) - len(before)  # broadcast: dimensions are added in front
    elif len(after) < len(before):
        dim = None
    if dim is not None and (dim >= len(after) or dim < 0):
        dim = None
    if dim is not None and node.type in (OPTYPE.SPLIT, OPTYPE.SLICE) and dim in saved_dims(node):
        return Axis(dim, after[dim])
    return attrs.evolve(axis, dim=dim)


def _after_lengths(
    node: Node, dim: int, *, before: Sequence[int], after: Sequence[int]
) -> int | None:
    if is_reduction(node):
        gone = saved_dims(node)
        if dim in gone:
            return None
        keeps: bool = node.grad_fn._saved_keepdim
        return dim if keeps else dim - len([d for d in gone if d < dim])
    if len(after) > len(before):
        new = signed(node.grad_fn._saved_dim) % len(after)
        return dim + (new <= dim)
    return (
        dim
        - sum(length == 1 for length in before[:dim])
        + sum(length == 1 for length in after[:dim])
    )


def _after_reshape(dim: int, *, before: Sequence[int], after: Sequence[int]) -> int | None:
    ahead = math.prod(before[:dim])
    for place, length in enumerate(after):
        if math.prod(after[:place]) == ahead and length == before[dim]:
            return place
    return None


def _sources_first(nodes: Sequence[Node]) -> Iterator[Node]:
    seen: set[Node] = set()
    for root in nodes:
        stack = [(root, False)]
        while stack:
            node, is_done = stack.pop()
            if is_done:
                yield node
            elif node not in seen:
                seen.add(node)
                stack.append((node, True))
                stack += [(source, False) for source in node.inputs if source not in seen]
