"""In how many runs channels are removed evenly, so that groups and heads stay equally large."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import attrs
from torch_pruning.ops import OPTYPE

from tersely_shrink.graph import MODULE_TYPES, Graph, State
from tersely_shrink.spaces import ChannelSpaces

Place = tuple[int, int]


@attrs.frozen(eq=False)
class Partition:
    """Channels that are cut into equally long runs.

    Attributes:
        classes: the class of each channel; None where no module makes it.
        length: channels in a run.
    """

    classes: tuple[int | None, ...]
    length: int


class Runs:
    """Everything in a network that cuts channels into equal runs.

    Grouped convolutions and group norms cut what enters and leaves them, views into heads and
    splits cut what they view. A depthwise convolution has one channel in each group, which goes
    with its group, so it cuts nothing.

    Args:
        graph: the traced model.
        spaces: its channels.
    """

    def __init__(self, graph: Graph, spaces: ChannelSpaces) -> None:
        self._partitions = tuple(
            Partition(spaces.classes(state, channels), length)
            for state, length, channels in _constraints(graph, spaces)
            if 1 <= length < channels
        )

    def of(self, groups: Sequence[Sequence[int]]) -> list[int]:
        """Return in how many runs each group of channels has to be pruned evenly.

        Args:
            groups: the classes of the channels of each group.
        """
        owners: dict[int, list[Place]] = {}
        for number, classes in enumerate(groups):
            for position, one in enumerate(classes):
                owners.setdefault(one, []).append((number, position))
        lengths = [len(classes) for classes in groups]
        for partition in self._partitions:
            for number, length in _run_lengths(partition, owners).items():
                lengths[number] = math.gcd(lengths[number], length)
        return [len(classes) // length for classes, length in zip(groups, lengths, strict=True)]


def _constraints(graph: Graph, spaces: ChannelSpaces) -> Iterator[tuple[State, int, int]]:
    for node in graph.nodes:
        if node.type not in MODULE_TYPES:
            continue
        pruner = graph.dependencies.get_pruner_of_module(node.module)
        for state, groups in (
            (graph.leaving(node), pruner.get_out_channel_groups(node.module)),
            (graph.entering(node), pruner.get_in_channel_groups(node.module)),
        ):
            count = graph.count(state)
            is_passed = node.type in (OPTYPE.DEPTHWISE_CONV, OPTYPE.GN) and groups == count
            if count is not None and groups > 1 and not is_passed:
                yield state, count // groups, count
    for cut in spaces.edges.cuts:
        yield cut.state, cut.length, cut.channels


def _run_lengths(partition: Partition, owners: dict[int, list[Place]]) -> dict[int, int]:
    """Length of the runs that a partition demands of each group it concerns."""
    places = _places(partition.classes, owners)
    # Parts of a concatenation lose equally much only in runs that fit all of them.
    boundaries = [
        one
        for one in range(1, len(places))
        if one % partition.length == 0 or _is_seam(places[one - 1], places[one])
    ]
    length = math.gcd(len(places), *boundaries)
    found: dict[int, int] = {}
    previous: dict[int, Place] = {}
    for one, place in enumerate(places):
        if place is None:
            continue
        number, position = place
        run = one // length
        known = previous.get(number)
        found.setdefault(number, 0)
        if known is not None and known[1] != run:
            found[number] = math.gcd(found[number], position)
        previous[number] = (position, run)
    return found


def _places(classes: Sequence[int | None], owners: dict[int, list[Place]]) -> list[Place | None]:
    seen: dict[int, int] = {}
    places: list[Place | None] = []
    for one in classes:
        candidates = [] if one is None else owners.get(one, [])
        if one is None or not candidates:
            places.append(None)
            continue
        # Channels that are tied to themselves occur several times, in the same order.
        count = seen[one] = seen.get(one, -1) + 1
        places.append(candidates[count % len(candidates)])
    return places


def _is_seam(before: Place | None, after: Place | None) -> bool:
    if before is None or after is None:
        return before is not after
    return before[0] != after[0] or after[1] != before[1] + 1
