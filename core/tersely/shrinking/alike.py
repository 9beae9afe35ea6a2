"""Blocks of channels: the finest way to cut the members of a group into equally many."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from tersely.contracts.tracer import ChannelBlocks


def cut_alike(members: Sequence[Sequence[int]]) -> tuple[ChannelBlocks, ...] | None:
    """Cut members so that channels that go together are in one block, in as many as can be.

    Args:
        members: the class of each channel of each member; channels of one class go together.

    Returns:
        One cutting for each member, all with the same number of blocks; None where at most one
        block would be left.
    """
    is_plain = len(set(members[0])) == len(members[0])
    if is_plain and all(classes == members[0] for classes in members):
        return tuple(ChannelBlocks() for _ in members)
    smallest = min(len(classes) for classes in members)
    for has_parts in (False, True):  # heads go whole rather than one position of each
        for blocks in range(smallest, 1, -1):
            if all(len(classes) % blocks == 0 for classes in members):
                found = _matching(members, blocks, {}, has_parts=has_parts)
                if found is not None:
                    return tuple(found)
    return None


def _matching(
    members: Sequence[Sequence[int]], blocks: int, known: Mapping[int, int], *, has_parts: bool
) -> list[ChannelBlocks] | None:
    """The cuttings of the first members that fit those of the rest."""
    if not members:
        return []
    first, *rest = members
    for cutting in _cuttings(len(first) // blocks, has_parts=has_parts):
        places = dict(known)
        fits = all(
            places.setdefault(one, block) == block
            for one, block in ((c, cutting.block_of(i, len(first))) for i, c in enumerate(first))
        )
        others = _matching(rest, blocks, places, has_parts=has_parts) if fits else None
        if others is not None:
            return [cutting, *others]
    return None


def _cuttings(size: int, *, has_parts: bool) -> Iterator[ChannelBlocks]:
    """All ways in which so many channels make one block; neighbours first."""
    for parts in range(1, size + 1 if has_parts else 2):
        if size % parts == 0:
            yield ChannelBlocks(parts, size // parts)
