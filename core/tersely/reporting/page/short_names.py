"""Dotted names that are short enough for a picture, and still tell their layers apart."""

from __future__ import annotations

from collections.abc import Sequence

_DOTS = "..."


def short_names(names: Sequence[str], length: int) -> list[str]:
    """Return names without the parts that all of them share, where they are too long with them.

    Of several ways to cut what is still too long, the first of those that leave most names apart.

    Args:
        names: dotted names.
        length: how many characters a name may have.
    """
    parts = [name.split(".") for name in names]
    if max(map(len, names)) > length and len(parts) > 1:
        while min(map(len, parts)) > 1 and len({one[0] for one in parts}) == 1:
            parts = [one[1:] for one in parts]
        while min(map(len, parts)) > 1 and len({one[-1] for one in parts}) == 1:
            parts = [one[:-1] for one in parts]
    initials = [_initials(one, length) for one in parts]
    ways = (
        [shorten(".".join(one), length) for one in parts],
        [shorten(one, length) for one in initials],
        [_without_end(one, length) for one in initials],
    )
    return max(ways, key=lambda cut: len(set(cut)))


def shorten(name: str, length: int) -> str:
    """Return a name without its middle where it is too long.

    Args:
        name: a name.
        length: how many characters it may have.
    """
    if len(name) <= length:
        return name
    head = length // 3
    return f"{name[:head]}{_DOTS}{name[head + len(_DOTS) - length :]}"


def _without_end(name: str, length: int) -> str:
    return name if len(name) <= length else f"{name[: length - len(_DOTS)]}{_DOTS}"


def _initials(parts: Sequence[str], length: int) -> str:
    """Return a name with as many of its first words as needed cut to their initials."""
    words = list(parts)
    for place, word in enumerate(words[:-1]):
        if len(".".join(words)) <= length:
            break
        words[place] = word if word.isdigit() else word[:1]
    return ".".join(words)
