"""Nearest names: what someone probably meant when a name is not among the legal ones."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_SIMILAR = 0.65
_SHORTEST_START = 2


def nearest(word: str, candidates: Iterable[str], *, count: int = 3) -> tuple[str, ...]:
    """Return the candidates that look most like a word.

    Case, hyphens, spaces and underscores do not count: ``Sparse-Ratio`` is as near to
    ``sparse_ratio`` as a name can be. A name that begins with the whole word is near too; with a
    word of two letters, where no other one does. Of two equally near names the first candidate
    leads.

    Args:
        word: what was written.
        candidates: what would have been legal, in order of preference.
        count: how many to return at most.

    Returns:
        The nearest candidates, best first; empty when nothing is similar.
    """
    plain: dict[str, list[str]] = {}
    for candidate in dict.fromkeys(candidates):
        plain.setdefault(_plain(candidate), []).append(candidate)
    start = _plain(word)
    close = difflib.get_close_matches(start, plain, n=count, cutoff=_SIMILAR)
    if len(start) >= _SHORTEST_START:
        begun = [key for key in plain if key.startswith(start) and key not in close]
        close += begun if len(start) > _SHORTEST_START or len(begun) == 1 else []
    return tuple(name for key in close for name in plain[key])[:count]


def did_you_mean(word: str, candidates: Iterable[str]) -> str | None:
    """Return a hint that names the nearest candidate, or None when nothing is similar.

    Args:
        word: what was written.
        candidates: what would have been legal.
    """
    near = nearest(word, candidates, count=1)
    return f"did you mean {near[0]!r}?" if near else None


def unmistakable(word: str, candidates: Iterable[str]) -> str | None:
    """Return the candidate that a misspelt word can only stand for, or None.

    Args:
        word: what was written.
        candidates: what would have been legal.
    """
    names = list(candidates)
    near = nearest(word, names, count=2)
    if not near:
        return None
    start = _plain(word)
    scores = [difflib.SequenceMatcher(None, start, _plain(name)).ratio() for name in near]
    if scores[0] < _SURE or (len(scores) > 1 and scores[0] - scores[1] < _AHEAD):
        return None
    return near[0]


_SURE = 0.8
_AHEAD = 0.05


def _plain(name: str) -> str:
    return name.casefold().replace("-", "").replace("_", "").replace(" ", "")
