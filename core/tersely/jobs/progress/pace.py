"""How long a counted task will still take, and which lines a log file gets."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from threading import Timer

_SECONDS = 10.0
"""Seconds between two progress lines of a log file, at least."""

_PATIENCE = 2.0
"""A step without a count is logged once it has taken this many seconds."""

_WINDOW = 60.0
"""Seconds of the past from which the rest is estimated."""

_MINUTE, _HOUR = 60, 3600


class Pace:
    """What is known of the speed of something that is counted; a class, because it looks back.

    Args:
        clock: returns seconds; None for the machine's.
    """

    def __init__(self, clock: Callable[[], float] | None = None) -> None:
        self._clock = clock or time.monotonic
        self._reported_at = self._clock()
        self._seen: deque[tuple[float, int]] = deque([(self._reported_at, 0)])

    def note(self, done: int) -> None:
        """Remember how much is done now.

        Args:
            done: the count.
        """
        now = self._clock()
        self._seen.append((now, done))
        while len(self._seen) > 2 and now - self._seen[1][0] > _WINDOW:  # noqa: PLR2004  # two ends
            self._seen.popleft()

    def remaining(self, total: int | None) -> float | None:
        """Return the seconds that the rest will take at the speed of the last minute, or None.

        Args:
            total: how much there is to do, or None if unknown.
        """
        (start, before), (now, done) = self._seen[0], self._seen[-1]
        if total is None or done <= before or now <= start:
            return None
        return (total - done) * (now - start) / (done - before)

    def is_due(self) -> bool:
        """Tell whether it is time for a line, and count from now on if it is."""
        now = self._clock()
        if now - self._reported_at < _SECONDS:
            return False
        self._reported_at = now
        return True

    def sentence(self, title: str, *, done: int, total: int | None) -> str:
        """Return the progress in words.

        Args:
            title: what is counted.
            done: the count.
            total: how much there is to do, or None if unknown.
        """
        of = "" if total is None else f" of {total}"
        left = self.remaining(total)
        rest = "" if left is None or done == total else f", about {spell_rest(left)} left"
        return f"{done}{of} {title}{rest}"


class LogLines:
    """Progress as lines of a log file; a class, because a step is reported while it is under way.

    Args:
        say: takes a line.
    """

    def __init__(self, say: Callable[[str], object]) -> None:
        self._say = say
        self._first = Pace()
        self._paces: dict[str, Pace] = {}
        self._waiting: Timer | None = None

    def tell(self, title: str, done: int, total: int) -> None:
        """Report progress, at most every ten seconds; see `tersely.engine.progress`.

        Args:
            title: what is counted, or the step that begins.
            done: the count; 0 where a step begins, which is reported if it takes two seconds.
            total: how much there is to do.
        """
        self.end()
        if done == 0:
            self._waiting = Timer(_PATIENCE, self._say, (title,))
            self._waiting.daemon = True
            self._waiting.start()
            return
        pace = self._paces.setdefault(title, Pace() if self._paces else self._first)
        pace.note(done)
        if done < total and pace.is_due():
            self._say(pace.sentence(title, done=done, total=total))
        if done == total:
            self._paces[title] = Pace()  # the next block starts from zero

    def end(self) -> None:
        """Stop reporting the step under way."""
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None


def spell_rest(seconds: float) -> str:
    """Return a rest of time as people say it, no more exact than it is known.

    Args:
        seconds: not negative.
    """
    if seconds < _MINUTE:
        return f"{max(1, round(seconds))} s"
    if seconds < _HOUR:
        return f"{round(seconds / _MINUTE)} min"
    hours, rest = divmod(round(seconds / _MINUTE), 60)
    return f"{hours} h {rest} min" if rest else f"{hours} h"
