"""How a job reports its progress: bars while a person watches, plain lines in a log file."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import Protocol, TypeAlias, TypeVar

from tersely.engine.progress import progress_listener
from tersely.extras import extra
from tersely.jobs.progress.pace import LogLines, Pace

with extra("cli", purpose="a job"):
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        SpinnerColumn,
        Task,
        TaskID,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

T = TypeVar("T")


Gauge: TypeAlias = Callable[[int, int], None]
"""Called with how much is done and how much there is."""


class Display(Protocol):
    """Where a job shows its progress."""

    def phase(self, title: str) -> contextlib.AbstractContextManager[None]:
        """Announce a phase; the context ends when it is finished.

        Args:
            title: what is done, as a verb phrase.
        """
        ...

    def line(self, text: str, *, style: str = "") -> None:
        """Say one line, or a table of several.

        Args:
            text: what to say.
            style: a rich style, used where colours are.
        """
        ...

    def track(
        self, batches: Iterable[T], *, title: str, note: Callable[[], str] | None = None
    ) -> Iterator[T]:
        """Yield batches and show how far they are.

        Args:
            batches: what to go through.
            title: what is counted.
            note: returns a text that is shown instead of the count.
        """
        ...

    def count(
        self, current: Callable[[], int], *, title: str
    ) -> contextlib.AbstractContextManager[None]:
        """Show a number that grows on its own while the context lasts.

        Args:
            current: returns the number.
            title: what is counted.
        """
        ...

    def gauge(self, *, title: str) -> contextlib.AbstractContextManager[Gauge]:
        """Show the progress of something that counts on its own, while the context lasts.

        Args:
            title: what is counted.
        """
        ...

    def working(self) -> contextlib.AbstractContextManager[None]:
        """Show the progress of work in the context that reports to `tersely.engine.progress`."""
        ...


def length_of(batches: Iterable[object]) -> int | None:
    """Return how many batches there are, or None where they do not tell.

    Args:
        batches: anything that can be gone through.
    """
    try:
        return len(batches) if isinstance(batches, Sized) else None
    except TypeError:  # PyTorch's loaders have a length even where their dataset has none
        return None


@contextlib.contextmanager
def watch(console: Console, *, phases: int) -> Iterator[Display]:
    """Yield the display that suits a console: bars on a terminal, lines elsewhere.

    Args:
        console: where to speak.
        phases: how many phases the job has.
    """
    if not console.is_terminal:
        yield PlainDisplay(console, phases=phases)
        return
    bars = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        AmountColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        refresh_per_second=4,  # the display shares its cores with the training
    )
    with bars:
        yield BarDisplay(console, bars, phases=phases)


class PlainDisplay:
    """Speaks in lines that stay the same from run to run, for log files and tests.

    Args:
        console: where to print.
        phases: how many phases the job has.
    """

    def __init__(self, console: Console, *, phases: int) -> None:
        self._console = console
        self._phases = phases
        self._number = 0

    @contextlib.contextmanager
    def phase(self, title: str) -> Iterator[None]:
        """Print the phase's number and title."""
        self._number += 1
        self.line(f"[{self._number}/{self._phases}] {title}")
        yield

    def line(self, text: str, *, style: str = "") -> None:
        """Print a line."""
        # Neither markup nor wrapping may change what a log file is searched for.
        self._console.print(Text(text, style=style), soft_wrap=True)

    def track(
        self, batches: Iterable[T], *, title: str, note: Callable[[], str] | None = None
    ) -> Iterator[T]:
        """Yield the batches, then print how many there were, or the note."""
        count, total, pace = 0, length_of(batches), Pace()
        for batch in batches:
            yield batch
            count += 1
            pace.note(count)
            if pace.is_due():
                said = pace.sentence(title, done=count, total=total)
                self.line(f"  {said}" if note is None else f"  {said}: {note()}")
        self.line(f"  {count} {title}" if note is None else f"  {title}: {note()}")

    @contextlib.contextmanager
    def count(self, current: Callable[[], int], *, title: str) -> Iterator[None]:
        """Print the number at the end."""
        yield
        self.line(f"  {current()} {title}")

    @contextlib.contextmanager
    def gauge(self, *, title: str) -> Iterator[Gauge]:
        """Print how far it is, at most every ten seconds, and the number at the end."""
        pace, latest = Pace(), 0

        def tell(done: int, total: int) -> None:
            nonlocal latest
            latest = done
            pace.note(done)
            if done < total and pace.is_due():
                self.line(f"  {pace.sentence(title, done=done, total=total)}")

        yield tell
        self.line(f"  {latest} {title}")

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """Print how far it is, at most every ten seconds, and steps that take two seconds."""
        lines = LogLines(lambda text: self.line(f"  {text}"))
        try:
            with progress_listener(lines.tell):
                yield
        finally:
            lines.end()


class BarDisplay:
    """Shows one bar for the phases and one for what a phase counts.

    Args:
        console: where to print.
        bars: a started progress display.
        phases: how many phases the job has.
    """

    def __init__(self, console: Console, bars: Progress, *, phases: int) -> None:
        self._console = console
        self._bars = bars
        self._job = bars.add_task("start", total=phases)

    @contextlib.contextmanager
    def phase(self, title: str) -> Iterator[None]:
        """Move the bar of phases, and leave a line with the time it took."""
        self._bars.update(self._job, description=title)
        start = time.perf_counter()
        yield
        seconds = time.perf_counter() - start
        self._bars.advance(self._job)
        self._console.print(Text.assemble(("done ", "green"), title, (f"  {seconds:.1f} s", "dim")))

    def line(self, text: str, *, style: str = "") -> None:
        """Print above the bars."""
        self._console.print(Text(text, style=style), soft_wrap=True)

    def track(
        self, batches: Iterable[T], *, title: str, note: Callable[[], str] | None = None
    ) -> Iterator[T]:
        """Show a bar of its own, with an end when the number of batches is known."""
        task = self._bars.add_task(f"  {title}", total=length_of(batches))
        try:
            for batch in batches:
                yield batch
                said = f"  {title}" if note is None else f"  {title}: {note()}"
                self._bars.update(task, advance=1, description=said)
        finally:
            self._bars.remove_task(task)
        if note is not None:
            self.line(f"  {title}: {note()}")

    @contextlib.contextmanager
    def count(self, current: Callable[[], int], *, title: str) -> Iterator[None]:
        """Show a line of its own with the number as it is now."""
        task = self._bars.add_task(f"  {title}", total=None, current=current)
        try:
            yield
        finally:
            self._bars.remove_task(task)

    @contextlib.contextmanager
    def gauge(self, *, title: str) -> Iterator[Gauge]:
        """Show a bar of its own."""
        task = self._bars.add_task(f"  {title}", total=None)
        try:
            yield lambda done, total: self._bars.update(task, completed=done, total=total)
        finally:
            self._bars.remove_task(task)

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """Show a bar for each thing that is counted, while it is under way."""
        tasks: dict[str, TaskID] = {}

        def tell(title: str, done: int, total: int) -> None:
            if title not in tasks:
                tasks[title] = self._bars.add_task(f"  {title}", total=total)
            self._bars.update(tasks[title], completed=done, total=total)
            if done == total:
                self._bars.remove_task(tasks.pop(title))

        try:
            with progress_listener(tell):
                yield
        finally:
            for task in tasks.values():
                self._bars.remove_task(task)


class AmountColumn(MofNCompleteColumn):
    """How many of how many, or a number that someone else counts; rich asks for a class."""

    def render(self, task: Task) -> Text:
        """Return what is shown for one bar."""
        current = task.fields.get("current")
        return super().render(task) if current is None else Text(str(current()))
