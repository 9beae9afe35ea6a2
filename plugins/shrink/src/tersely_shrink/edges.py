"""The ways channels take from one node of the graph to the next."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import Any, TypeAlias

import attrs
from torch_pruning import _helpers
from torch_pruning.ops import OPTYPE

from tersely_shrink.axes import Axis, find_axes, input_shape, is_reduction, saved_dims
from tersely_shrink.graph import (
    MODULE_TYPES,
    Graph,
    Node,
    State,
    arguments_of,
    operation,
    shape_of,
    signed,
)

ROW_TYPES = (OPTYPE.CONV, OPTYPE.DEPTHWISE_CONV, OPTYPE.LINEAR)
Pairs: TypeAlias = list[tuple[int, int]]
Mapping: TypeAlias = Callable[[Sequence[int]], Pairs]


@attrs.frozen(eq=False)
class Edge:
    """Channels that are the same at both ends.

    Attributes:
        source: where they come from.
        target: where they go.
        mapping: takes channel numbers of the source and returns (source, target) numbers; None
            where every channel keeps its number.
    """

    source: State
    target: State
    mapping: Mapping | None = None


@attrs.frozen(eq=False)
class Cut:
    """A tensor that an operation cuts into parts of fixed places, as a view into heads does.

    Attributes:
        state: the channels that are cut.
        length: channels in each part, which all have to stay equally long.
        channels: how many channels there are.
    """

    state: State
    length: int
    channels: int


class Edges:
    """All edges of a graph, and the cuts its operations make.

    torch-pruning counts a concatenation's inputs by looking for the modules behind them, and
    numbers the parts of a split in the order in which it met them. Both are read from the saved
    shapes here. It takes every other operation for elementwise, so what reduces the channels is
    left out here. The rest is its own: views, slices and repeated heads.

    Args:
        graph: the traced model.

    Attributes:
        graph: the traced model.
        axes: where the channels leave each node.
        edges: the edges.
        cuts: the cuts.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.axes = find_axes(graph)
        self.edges: list[Edge] = []
        self.cuts: list[Cut] = []
        for node in graph.nodes:
            self.edges += self._into(node)
            self.cuts += self._cuts(node)
        self.edges += _of_tied_weights(graph)

    def _into(self, node: Node) -> Iterator[Edge]:
        graph = self.graph
        target = graph.entering(node)
        if graph.count(target) == 1:
            return  # one channel is broadcast: it belongs to all channels and to none
        arguments = arguments_of(node)
        starts = self._starts(node, arguments)
        if starts is None and self._is_laid_out(node, arguments):
            return
        handled: set[Node] = set()
        for place, (source_node, output) in enumerate(arguments):
            source = graph.leaving(source_node)
            if graph.count(source) == 1 or self.is_reduced(node, source_node):
                continue
            part = self._part(node, source_node, output)
            if part is None and starts is None:
                if source_node not in handled:
                    yield from self._as_traced(source, target)
                handled.add(source_node)
            else:
                begin, length = part or (0, starts[place + 1] - starts[place] if starts else 0)
                shift = (starts[place] if starts else 0) - begin
                yield Edge(source, target, _shifted(begin, length, shift))

    def _starts(self, node: Node, arguments: Sequence[tuple[Node, int]]) -> list[int] | None:
        """Where the channels of each argument begin in a concatenation of channels, and the end."""
        if node.type != OPTYPE.CONCAT or not arguments:
            return None
        axes = [self.axes[source] for source, _ in arguments if source in self.axes]
        [dim] = saved_dims(node)
        if not axes or axes[0].dim != dim:
            return None
        sizes = [shape_of(source, output)[dim] for source, output in arguments]
        return [0, *accumulate(sizes)]

    def _is_laid_out(self, node: Node, arguments: Sequence[tuple[Node, int]]) -> bool:
        """Whether tensors are laid beside each other for the model's output, and nothing else.

        Their channels would only meet in what reads them there.
        """
        if node.type in MODULE_TYPES:
            return False
        if node.type == OPTYPE.CONCAT:
            if not any(source in self.axes for source, _ in arguments):
                return False
        elif not operation(node).startswith("Stack"):
            return False
        return _leads_to_outputs_alone(node)

    def _part(self, node: Node, source: Node, output: int) -> tuple[int, int] | None:
        """First channel and number of channels of the part of a source that a node takes."""
        before = self._axis_before(source)
        if before is None:
            return None
        if source.type == OPTYPE.SPLIT and before.dim is not None:
            if before.dim not in saved_dims(source):
                return None
            lengths = [shape_of(source, k)[before.dim] for k in range(_outputs(source))]
            return sum(lengths[:output]), lengths[output]
        if source.type == OPTYPE.UNBIND and before.dim is None:
            return _share(output, _outputs(source), before.channels)
        return None

    def _as_traced(self, source: State, target: State) -> Iterator[Edge]:
        node, source_node = target[0], source[0]
        share = self._selected(node)
        if share is not None:
            yield Edge(source, target, _shifted(*share, -share[0]))
            return
        if node.type == OPTYPE.CONCAT or source_node.type in (OPTYPE.SPLIT, OPTYPE.UNBIND):
            yield Edge(source, target)
            return
        for one, other in ((source_node, node), (node, source_node)):
            for dependency in one.dependencies:
                if dependency.target is other:
                    yield self._dependency(dependency)
                    break

    def _selected(self, node: Node) -> tuple[int, int] | None:
        """First channel and number of channels that an index along a part of them takes."""
        if node.type in MODULE_TYPES or not operation(node).startswith("Select"):
            return None
        before = self._axis_before(node)
        if before is None or before.dim is not None:
            return None
        [dim] = saved_dims(node)
        return _share(signed(node.grad_fn._saved_index), input_shape(node)[dim], before.channels)

    def _dependency(self, dependency: Any) -> Edge:
        ends = (
            self.graph.state(dependency.source, dependency.trigger),
            self.graph.state(dependency.target, dependency.handler),
        )
        mappings = [one for one in dependency.index_mapping if one is not None]
        return Edge(*ends, _traced(mappings)) if mappings else Edge(*ends)

    def is_reduced(self, node: Node, source: Node) -> bool:
        """Tell whether an operation takes one value from all channels of an argument.

        Args:
            node: the operation.
            source: the argument.
        """
        axis = self.axes.get(source)
        if axis is None or axis.dim is None or node.type in MODULE_TYPES or not is_reduction(node):
            return False
        return axis.dim in saved_dims(node)

    def _axis_before(self, node: Node) -> Axis | None:
        known = [self.axes[source] for source, _ in arguments_of(node) if source in self.axes]
        return known[0] if known else None

    def _cuts(self, node: Node) -> Iterator[Cut]:
        before = self._axis_before(node)
        if before is None or before.dim is None or node.type in MODULE_TYPES:
            return
        state = self.graph.entering(node)
        if node.type == OPTYPE.RESHAPE:
            length = _last_factor(input_shape(node), shape_of(node), before.dim)
            if length is not None:
                yield Cut(state, length, before.channels)
        elif node.type == OPTYPE.SPLIT and before.dim in saved_dims(node):
            lengths = {shape_of(node, k)[before.dim] for k in range(_outputs(node))}
            if len(lengths) == 1:
                yield Cut(state, lengths.pop(), before.channels)


def _leads_to_outputs_alone(node: Node) -> bool:
    seen: set[Node] = set()
    waiting = list(node.outputs)
    for one in waiting:
        if one.type in MODULE_TYPES or one.type == OPTYPE.PARAMETER or is_reduction(one):
            return False
        if one.type != OPTYPE.CONCAT and len(one.inputs) > 1:
            return False  # they meet others there
        if one not in seen:
            seen.add(one)
            waiting += one.outputs
    return True


def _of_tied_weights(graph: Graph) -> Iterator[Edge]:
    """Modules that use one weight lose the same rows and columns."""
    owners: dict[int, Node] = {}
    for node in graph.nodes:
        weight = getattr(node.module, "weight", None)
        if weight is None or node.type not in (*ROW_TYPES, OPTYPE.EMBED):
            continue
        other: Node = owners.setdefault(id(weight), node)
        if other is not node:
            yield Edge(_columns(graph, other), _columns(graph, node))
            if node.type == other.type:
                yield Edge(graph.leaving(other), graph.leaving(node))


def _columns(graph: Graph, node: Node) -> State:
    return graph.leaving(node) if node.type == OPTYPE.EMBED else graph.entering(node)


def _outputs(node: Node) -> int:
    return len(node.grad_fn._input_metadata)


def _share(index: int, parts: int, channels: int) -> tuple[int, int] | None:
    if channels % parts:
        return None
    return index % parts * (channels // parts), channels // parts


def _last_factor(before: Sequence[int], after: Sequence[int], dim: int) -> int | None:
    """Length of the innermost dimension that a view cuts one dimension into, or None."""
    ahead = 1
    for length in before[:dim]:
        ahead *= length
    place, passed = 0, 1
    while place < len(after) and passed < ahead:
        passed *= after[place]
        place += 1
    if passed != ahead:
        return None
    factors: list[int] = []
    product = 1
    while place < len(after) and product < before[dim]:
        factors.append(after[place])
        product *= after[place]
        place += 1
    if product != before[dim] or sum(factor > 1 for factor in factors) < 2:  # noqa: PLR2004  # a cut leaves at least two
        return None
    return factors[-1]


def _shifted(begin: int, length: int, shift: int) -> Mapping:
    def mapping(channels: Sequence[int]) -> Pairs:
        return [(one, one + shift) for one in channels if begin <= one < begin + length]

    return mapping


def _traced(mappings: Sequence[Any]) -> Mapping:
    def mapping(channels: Sequence[int]) -> Pairs:
        indices = [_helpers._HybridIndex(idx=one, root_idx=one) for one in channels]
        for one in mappings:
            taken = indices
            indices = one(taken)
            if any(index.root_idx is None for index in indices):
                # Repeated heads forget where they come from, but keep the order.
                indices = [
                    _helpers._HybridIndex(idx=new.idx, root_idx=old.root_idx)
                    for old, new in zip(taken, indices, strict=True)
                ]
        return sorted((index.root_idx, index.idx) for index in indices)

    return mapping
