"""Which channels of all nodes are the same channel."""

from __future__ import annotations

from collections.abc import Sequence

from tersely_shrink.edges import Edge, Edges
from tersely_shrink.graph import MODULE_TYPES, Node, State


class ChannelSpaces:
    """Classes of channels that can only be removed together.

    Nodes between which every channel keeps its number share a space, so that most of a network
    is merged without looking at single channels; the other edges connect channels of spaces.
    Mutable while it is built and doubted.

    Args:
        edges: the ways channels take.

    Attributes:
        edges: the ways channels take.
    """

    def __init__(self, edges: Edges) -> None:
        self.edges = edges
        self._graph = edges.graph
        self._space: dict[State, State] = {}
        self._doubts: dict[State, str] = {}
        self._component: dict[State, State] = {}
        self._ids: dict[State, dict[int, int]] = {}
        self._parents: list[int] = []
        for edge in edges.edges:
            if edge.mapping is None:
                _unite(self._space, edge.source, edge.target)
        for edge in edges.edges:
            _unite(self._component, self.space(edge.source), self.space(edge.target))
        self._lengths = self._count()
        self._connect([edge for edge in edges.edges if edge.mapping is not None])

    def space(self, state: State) -> State:
        """Return the state that stands for all states whose channels have the same numbers."""
        return _find(self._space, state)

    def length(self, state: State) -> int | None:
        """Return how many channels there are at a state, or None where no module says so."""
        return self._lengths.get(self.space(state))

    def classes(self, state: State, count: int) -> tuple[int | None, ...]:
        """Return the class of each of the first channels of a state; None where none arrives.

        Args:
            state: the state.
            count: how many channels to look at.
        """
        ids = self._ids.get(self.space(state), {})
        return tuple(self._root(ids[one]) if one in ids else None for one in range(count))

    def doubt(self, node: Node, reason: str) -> None:
        """Note that what was traced into a node is not what the network does.

        Args:
            node: the node.
            reason: one sentence.
        """
        self._doubt(self._graph.entering(node), reason)

    def doubts(self, state: State) -> str | None:
        """Return why the channels at a state cannot be trusted, or None when they can."""
        return self._doubts.get(_find(self._component, self.space(state)))

    def _doubt(self, state: State, reason: str) -> None:
        self._doubts.setdefault(_find(self._component, self.space(state)), reason)

    def _count(self) -> dict[State, int]:
        lengths: dict[State, int] = {}
        named: dict[State, Node] = {}
        for node in self._graph.nodes:
            if node.type not in MODULE_TYPES:
                continue
            for state in dict.fromkeys([self._graph.leaving(node), self._graph.entering(node)]):
                count, space = self._graph.count(state), self.space(state)
                if count is None:
                    continue
                if lengths.setdefault(space, count) != count:
                    other = named[space]
                    self._doubt(
                        state,
                        f"{self._graph.title(other)} has {lengths[space]} channels where "
                        f"{self._graph.title(node)} has {count}, and what lies between them is no "
                        f"operation that the tracer knows to change the number",
                    )
                named.setdefault(space, node)
        return lengths

    def _connect(self, edges: Sequence[Edge]) -> None:
        leaving: dict[State, list[Edge]] = {}
        for edge in edges:
            leaving.setdefault(self.space(edge.source), []).append(edge)
        waiting = []
        for space, length in self._lengths.items():
            self._meet(space, range(length))
            waiting.append(space)
        for space in waiting:
            for edge in leaving.get(space, ()):
                assert edge.mapping is not None  # only these are passed in
                target = self.space(edge.target)
                pairs = edge.mapping(sorted(self._ids[space]))
                limit = self._lengths.get(target)
                if limit is not None and any(other >= limit for _, other in pairs):
                    self._doubt(
                        target,
                        f"{self._graph.title(edge.target[0])} gets more channels "
                        f"than its {limit}, so an operation before it was misunderstood",
                    )
                    continue
                if self._meet(target, [other for _, other in pairs]):
                    waiting.append(target)
                here, there = self._ids[space], self._ids[target]
                for one, other in pairs:
                    self._join(here[one], there[other])

    def _meet(self, space: State, channels: Sequence[int]) -> bool:
        ids = self._ids.setdefault(space, {})
        new = [channel for channel in channels if channel not in ids]
        for channel in new:
            ids[channel] = len(self._parents)
            self._parents.append(len(self._parents))
        return bool(new)

    def _root(self, one: int) -> int:
        parents = self._parents
        while parents[one] != one:
            parents[one] = parents[parents[one]]
            one = parents[one]
        return one

    def _join(self, one: int, other: int) -> None:
        one, other = self._root(one), self._root(other)
        self._parents[max(one, other)] = min(one, other)


def _find(parents: dict[State, State], state: State) -> State:
    while (parent := parents.get(state, state)) != state:
        parents[state] = parents.get(parent, parent)
        state = parents[state]
    return state


def _unite(parents: dict[State, State], one: State, other: State) -> None:
    one, other = _find(parents, one), _find(parents, other)
    if one != other:
        parents[other] = one
