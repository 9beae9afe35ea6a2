"""How a job speaks: lines that can be compared in a log, bars on a terminal."""

import io
from collections.abc import Callable, Iterator

import pytest
from rich.console import Console
from torch.utils.data import DataLoader, IterableDataset

from tersely.engine.progress import Steps, with_progress
from tersely.jobs.progress.displays import BarDisplay, PlainDisplay, length_of, watch


def plain() -> tuple[Console, io.StringIO]:
    stream = io.StringIO()
    return Console(file=stream, width=40), stream


def terminal() -> tuple[Console, io.StringIO]:
    stream = io.StringIO()
    return Console(file=stream, width=80, force_terminal=True, color_system="truecolor"), stream


def test_a_file_gets_the_plain_display() -> None:
    with watch(plain()[0], phases=1) as display:
        assert isinstance(display, PlainDisplay)


def test_a_terminal_gets_bars() -> None:
    with watch(terminal()[0], phases=1) as display:
        assert isinstance(display, BarDisplay)


def test_a_plain_phase_is_one_numbered_line() -> None:
    console, stream = plain()

    with watch(console, phases=2) as display:
        for title in ("build", "train"):
            with display.phase(title):
                pass

    assert stream.getvalue() == "[1/2] build\n[2/2] train\n"


def test_a_long_line_stays_whole_in_a_file() -> None:
    console, stream = plain()
    text = "word " * 30 + "[red]"

    PlainDisplay(console, phases=1).line(text)

    assert stream.getvalue() == f"{text}\n"


def test_plain_tracking_yields_everything_and_counts() -> None:
    console, stream = plain()

    seen = list(PlainDisplay(console, phases=1).track(iter("abc"), title="batches observed"))

    assert seen == ["a", "b", "c"]
    assert stream.getvalue() == "  3 batches observed\n"


def test_a_plain_count_is_told_at_the_end() -> None:
    console, stream = plain()
    steps = [1]

    with PlainDisplay(console, phases=1).count(lambda: steps[0], title="steps trained"):
        steps[0] = 5

    assert stream.getvalue() == "  5 steps trained\n"


def test_a_finished_phase_leaves_a_line_above_the_bars() -> None:
    console, stream = terminal()

    with watch(console, phases=1) as display, display.phase("train"):
        pass

    assert "done " in stream.getvalue()
    assert "train" in stream.getvalue()


def test_bars_count_batches_and_steps() -> None:
    console, stream = terminal()

    with watch(console, phases=1) as display:
        seen = list(display.track([1, 2], title="batches observed"))
        with display.count(lambda: 42, title="steps trained"):
            assert isinstance(display, BarDisplay)
            display._bars.refresh()

    assert seen == [1, 2]
    assert "42" in stream.getvalue()


def test_a_phase_that_fails_leaves_no_line_of_success() -> None:
    console, stream = terminal()

    def fail() -> None:
        with watch(console, phases=1) as display, display.phase("train"):
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        fail()

    assert "done " not in stream.getvalue()


def test_a_note_is_told_instead_of_the_count_and_as_it_is_at_the_end() -> None:
    console, stream = plain()
    loss = [0.0]

    for value in PlainDisplay(console, phases=1).track(
        [2.0, 1.0], title="epoch 1 of 3", note=lambda: f"loss {loss[0]}"
    ):
        loss[0] = value

    assert stream.getvalue() == "  epoch 1 of 3: loss 1.0\n"


def test_bars_show_the_note_and_leave_it_above_them() -> None:
    console, stream = terminal()

    with watch(console, phases=1) as display:
        for _ in display.track([1], title="epoch 1 of 3", note=lambda: "loss 0.5"):
            assert isinstance(display, BarDisplay)
        display._bars.refresh()

    assert "epoch 1 of 3: loss 0.5\n" in stream.getvalue()


def test_batches_may_have_no_length_or_one_that_nobody_knows() -> None:
    class Stream(IterableDataset[int]):
        def __iter__(self) -> Iterator[int]:
            return iter([1, 2])

    assert length_of([1, 2]) == 2
    assert length_of(iter([1, 2])) is None
    assert length_of(DataLoader(Stream())) is None


def test_a_file_hears_of_long_work_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    console, stream = plain()
    now = [0.0]
    monkeypatch.setattr("tersely.jobs.progress.pace.time.monotonic", lambda: now[0])

    with PlainDisplay(console, phases=1).working():
        for _ in with_progress(range(30), "blocks compressed"):
            now[0] += 1.0

    # Twice in thirty seconds; the end is the phase's own.
    assert stream.getvalue().splitlines() == [
        "  10 of 30 blocks compressed, about 20 s left",
        "  20 of 30 blocks compressed, about 10 s left",
    ]


def test_a_terminal_shows_a_bar_for_what_is_counted() -> None:
    console, stream = terminal()

    with watch(console, phases=1) as display, display.working():
        for number in with_progress(["first", "second"], "blocks compressed"):
            if number == "second":
                display._bars.refresh()  # rich draws at most four times a second by itself

    assert "blocks compressed" in stream.getvalue()
    assert "1/2" in stream.getvalue()


def test_nobody_listens_outside_of_it() -> None:
    console, stream = plain()

    with PlainDisplay(console, phases=1).working():
        pass

    assert list(with_progress("ab", "letters")) == ["a", "b"]
    assert stream.getvalue() == ""


def test_a_gauge_ends_with_its_count() -> None:
    console, stream = plain()

    with PlainDisplay(console, phases=1).gauge(title="measured") as tell:
        tell(1, 2)
        tell(2, 2)

    assert stream.getvalue() == "  2 measured\n"


def test_a_file_hears_of_a_step_while_it_is_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    console, stream = plain()
    timers = hand_wound(monkeypatch)
    steps = Steps("onnx")

    with PlainDisplay(console, phases=1).working():
        steps.begin("capture the graph")
        timers[-1].ring()
        steps.begin("write")
        steps.end()

    assert stream.getvalue() == "  onnx: capture the graph\n"
    assert [timer.is_cancelled for timer in timers] == [True, True]


def test_a_step_that_fails_is_not_told_later(monkeypatch: pytest.MonkeyPatch) -> None:
    timers = hand_wound(monkeypatch)

    def fail() -> None:
        with PlainDisplay(plain()[0], phases=1).working():
            Steps("onnx").begin("write")
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        fail()

    assert timers[0].is_cancelled


def test_a_terminal_shows_the_step_under_way_alone() -> None:
    console, stream = terminal()
    steps = Steps("onnx")

    with watch(console, phases=1) as display, display.working():
        assert isinstance(display, BarDisplay)
        steps.begin("write")
        with steps.within("capture the graph"):
            shown = [task.description.strip() for task in display._bars.tasks]
        again = [task.description.strip() for task in display._bars.tasks]

    assert shown == ["start", "onnx: capture the graph"]
    assert again == ["start", "onnx: write"]
    assert stream.getvalue()


class HandWound:
    """A timer that rings when a test says so."""

    def __init__(self, seconds: float, call: Callable[..., object], args: tuple[object, ...]):
        assert seconds == 2.0
        self._call, self._args = call, args
        self.is_cancelled = False

    def start(self) -> None:
        pass

    def cancel(self) -> None:
        self.is_cancelled = True

    def ring(self) -> None:
        self._call(*self._args)


def hand_wound(monkeypatch: pytest.MonkeyPatch) -> list[HandWound]:
    made: list[HandWound] = []

    def make(seconds: float, call: Callable[..., object], args: tuple[object, ...]) -> HandWound:
        made.append(HandWound(seconds, call, args))
        return made[-1]

    monkeypatch.setattr("tersely.jobs.progress.pace.Timer", make)
    return made
