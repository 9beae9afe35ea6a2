"""In how many runs channels are removed evenly, so that groups and heads stay equally large."""

from __future__ import annotations

import math
from collections.abc import Sequence

import attrs
from torch import Tensor

from tersely.shrinking.labels import EqualParts, Grid, Labels, reduced, varying

Place = tuple[int, int]


@attrs.frozen
class Partition:
    """Channels that are cut into equally long runs.

    Attributes:
        classes: the class of each channel.
        length: channels in a run.
    """

    classes: tuple[int, ...]
    length: int


class Runs:
    """Everything in a network that cuts channels into equal runs.

    Grouped convolutions and group norms cut what enters and leaves them, views into heads and
    splits cut what they view.

    Args:
        labels: what a walk collected.
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
            if len(rows) > 1 and not is_whole:  # what goes whole is equally large by itself
                classes = tuple(one for row in rows for one in row)
                found[Partition(classes, len(rows[0]))] = None
        self._partitions = tuple(found)

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


def _heads(layer: Tensor) -> Tensor:
    """The classes of a view as rows of equal length; one row where only one dimension matters."""
    small = reduced(layer)
    dims = varying(small)
    if len(dims) < 2:  # noqa: PLR2004  # channels that differ along one dimension are not cut
        return small.reshape(1, -1)
    return small.reshape(-1, small.shape[dims[-1]])


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


def _places(classes: Sequence[int], owners: dict[int, list[Place]]) -> list[Place | None]:
    seen: dict[int, int] = {}
    places: list[Place | None] = []
    for one in classes:
        candidates = owners.get(one, [])
        if not candidates:
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
