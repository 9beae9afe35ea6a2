"""Runs of channels from which equally many must be removed, so that groups and heads stay equal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import attrs
from torch import Tensor

from tersely.shrinking.graph.labels import EqualParts, Grid, Labels, reduced, varying

Place = tuple[int, int]


@attrs.frozen
class Partition:
    """Channels that are divided into runs of equal length.

    Attributes:
        classes: the class of each channel.
        length: the number of channels in a run.
    """

    classes: tuple[int, ...]
    length: int


class Runs:
    """All partitions of channels into equal runs in a network.

    Grouped convolutions and group norms partition their inputs and outputs, views into heads and
    splits their operands.

    Args:
        labels: the labels of a walk.
    """

    def __init__(self, labels: Labels) -> None:
        component = labels.components()
        found: dict[Partition, None] = {}
        for constraint in labels.constraints:
            if isinstance(constraint, EqualParts):
                parts = component[constraint.parts]
            elif isinstance(constraint, Grid):
                parts = _heads(component[constraint.layer])
            else:
                continue
            # A batch and its heads in one dimension repeat the same runs.
            rows = list(dict.fromkeys(map(tuple, parts.tolist())))
            is_whole = len(rows[0]) > 1 and all(len(set(row)) == 1 for row in rows)
            if len(rows) > 1 and not is_whole:  # what is removed whole needs no equal parts
                classes = tuple(one for row in rows for one in row)
                found[Partition(classes, len(rows[0]))] = None
        self._partitions = tuple(found)

    def of(self, groups: Sequence[Mapping[int, int]]) -> list[int]:
        """Return the number of runs in which the blocks of each group must be pruned evenly.

        Args:
            groups: the block of each class of channels, for each group.
        """
        owners = {
            one: (number, block)
            for number, blocks in enumerate(groups)
            for one, block in blocks.items()
        }
        counts = [max(blocks.values()) + 1 for blocks in groups]
        lengths = list(counts)
        for partition in self._partitions:
            for number, length in _run_lengths(partition, owners).items():
                lengths[number] = math.gcd(lengths[number], length)
        return [count // length for count, length in zip(counts, lengths, strict=True)]


def _heads(layer: Tensor) -> Tensor:
    """The classes of a view as rows of equal length; one row if only one dimension matters."""
    small = reduced(layer)
    dims = varying(small)
    if len(dims) < 2:  # noqa: PLR2004  # channels that differ along one dimension are not cut
        return small.reshape(1, -1)
    return small.reshape(-1, small.shape[dims[-1]])


def _run_lengths(partition: Partition, owners: Mapping[int, Place]) -> dict[int, int]:
    """The length of runs that a partition demands of each group."""
    places = [owners.get(one) for one in partition.classes]
    rows = [places[at : at + partition.length] for at in range(0, len(places), partition.length)]
    if partition.length > 1 and all(len(set(row)) == 1 for row in rows):
        return {}  # each run is one block, which is removed whole
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


def _is_seam(before: Place | None, after: Place | None) -> bool:
    if before is None or after is None:
        return before is not after
    return before[0] != after[0] or after[1] not in (before[1], before[1] + 1)
