"""Nearest names: what someone probably meant when a name is not among the legal ones."""

from __future__ import annotations

import difflib
import functools
import heapq
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
    names = tuple(dict.fromkeys(candidates))
    if count > _KEPT:
        return _nearest(word, names, count)
    # One mistake in many places asks the same again and again.
    return _remembered(word, names)[:count]


_KEPT = 3


@functools.lru_cache(maxsize=256)
def _remembered(word: str, candidates: tuple[str, ...]) -> tuple[str, ...]:
    return _nearest(word, candidates, _KEPT)


def _nearest(word: str, candidates: tuple[str, ...], count: int) -> tuple[str, ...]:
    vocabulary = _vocabulary(candidates)
    start = _plain(word)
    close = vocabulary.close(start, count)
    if len(start) >= _SHORTEST_START:
        begun = [key for key in vocabulary.names if key.startswith(start) and key not in close]
        close += begun if len(start) > _SHORTEST_START or len(begun) == 1 else []
    return tuple(name for key in close for name in vocabulary.names[key])[:count]


@functools.lru_cache(maxsize=32)  # one may hold the names of all modules of a model
def _vocabulary(candidates: tuple[str, ...]) -> _Vocabulary:
    return _Vocabulary(candidates)


class _Vocabulary:
    """Names that a word is compared with, prepared for many words.

    Attributes:
        names: plain spelling -> the names that have it, in order of preference.
    """

    def __init__(self, candidates: tuple[str, ...]) -> None:
        self.names: dict[str, list[str]] = {}
        for candidate in candidates:
            self.names.setdefault(_plain(candidate), []).append(candidate)
        # A bit for the first, second... time that a letter occurs in a name.
        self._bits: dict[tuple[str, int], int] = {}
        self._letters = [(name, self._letters_of(name, grow=True)) for name in self.names]

    def close(self, word: str, count: int) -> list[str]:
        """Return the plain spellings that `difflib.get_close_matches` returns, in its order.

        Args:
            word: plain spelling of what was written.
            count: how many to return at most.
        """
        letters, length = self._letters_of(word, grow=False), len(word)
        matcher = difflib.SequenceMatcher()
        matcher.set_seq2(word)
        found = []
        for name, others in self._letters:
            # With the letters alone, in any order, it would be no more similar than this.
            if 2 * (letters & others).bit_count() < _SIMILAR * (length + len(name)):
                continue
            matcher.set_seq1(name)
            similarity = matcher.ratio()
            if similarity >= _SIMILAR:
                found.append((similarity, name))
        return [name for _, name in heapq.nlargest(count, found)]

    def _letters_of(self, name: str, *, grow: bool) -> int:
        seen: dict[str, int] = {}
        letters = 0
        for letter in name:
            seen[letter] = time = seen.get(letter, 0) + 1
            bit = self._bits.get((letter, time))
            if bit is None and grow:
                bit = self._bits[letter, time] = 1 << len(self._bits)
            letters |= bit or 0
        return letters


def did_you_mean(word: str, candidates: Iterable[str]) -> str | None:
    """Return a hint that names the nearest candidate, or None when nothing is similar.

    Args:
        word: what was written.
        candidates: what would have been legal.
    """
    near = nearest(word, candidates, count=1)
    return f"did you mean {near[0]!r}?" if near else None


def unmistakable(word: str, candidates: Iterable[str]) -> str | None:
    """Return the only candidate that a misspelt word can mean, or None.

    Args:
        word: what was written.
        candidates: what would have been legal.
    """
    return _unmistakable(word, tuple(candidates))


@functools.lru_cache(maxsize=256)
def _unmistakable(word: str, names: tuple[str, ...]) -> str | None:
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
