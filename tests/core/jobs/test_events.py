"""What is logged: each event of the documented table, with its fields, and no other."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
import torch

import tersely
from tersely.cli.main import main

ROOT = Path(__file__).parents[3]
COMMON = {"event", "log_level", "logger"}
EXAMPLE = "import torch\n\n\ndef example():\n    return torch.ones(2, 4)\n"


def documented() -> dict[str, set[str]]:
    """Each event of the table, with its fields."""
    text = (ROOT / "docs/reference/logging.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| [^|]* \| ([^|]*) \|$", text, flags=re.MULTILINE)
    return {event: set(re.findall(r"`(\w+)`", fields)) for event, fields in rows}


@pytest.fixture
def events() -> Iterator[list[Any]]:
    structlog.configure()
    with structlog.testing.capture_logs() as captured:
        yield captured
    structlog.reset_defaults()


def names(events: list[Any]) -> list[str]:
    return [event["event"] for event in events]


def test_the_table_has_every_event_that_the_source_logs() -> None:
    found = {
        event
        for path in (ROOT / "core").rglob("*.py")
        for event in re.findall(
            r"(?:logger\(__name__\)|\blog)\.(?:debug|info|warning|error)\(\s*\"(\w+)\"",
            path.read_text(encoding="utf-8"),
        )
    }
    assert found == set(documented())


def test_a_job_logs_its_phases_and_what_its_session_does(
    workshop: Any, run: Any, events: list[Any]
) -> None:
    workshop.code("toy_example.py", EXAMPLE)
    workshop.write(data={"example": "toy_example:example"}, train=None)

    run()

    found = names(events)
    assert found[:2] == ["job_started", "phase_started"]
    assert found[-1] == "job_finished"
    assert found.count("phase_started") == found.count("phase_finished") == events[0]["phases"]
    assert {"attached", "masks_updated", "compressed", "finalized"} <= set(found)
    for event in events:
        assert set(event) - COMMON == documented()[event["event"]]


def test_a_phase_that_fails_says_so(workshop: Any, run: Any, events: list[Any]) -> None:
    workshop.code("toy_wrong.py", "def build():\n    raise ValueError('no weights')\n")
    workshop.write(model="toy_wrong:build", data={}, train=None)

    with pytest.raises(ValueError, match="no weights"):
        run()

    assert events[-1]["event"] == "phase_failed"
    assert set(events[-1]) - COMMON == documented()["phase_failed"]
    assert events[-1]["error"] == "ValueError('no weights')"


@pytest.mark.usefixtures("toy_pruners")
def test_a_session_logs_what_is_called(events: list[Any], tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(4, 4))
    config = [{"op_names": ["0"], "sparse_ratio": 0.5}]
    recipe = {"pruning": {"algorithm": "toy", "config_list": config}}
    session = tersely.attach(model, recipe)
    session.calibrate([torch.ones(1, 4)])
    session.compress()
    session.save(tmp_path / "session")
    session.detach()
    tersely.load_session(model, tmp_path / "session")

    assert names(events) == [
        "attached", "calibrated", "masks_updated", "compressed", "saved", "detached", "attached",
        "restored",
    ]  # fmt: skip
    for event in events:
        assert set(event) - COMMON == documented()[event["event"]]


@pytest.mark.usefixtures("toy_pruners")
def test_nothing_is_printed_unless_structlog_is_configured(
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(4, 4))
    recipe = {
        "pruning": {"algorithm": "toy", "config_list": [{"op_names": ["0"], "sparse_ratio": 0.5}]}
    }
    tersely.attach(model, recipe).compress()

    assert capsys.readouterr() == ("", "")


def test_log_format_json_writes_an_object_a_line(
    workshop: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    workshop.write(data={}, train=None)
    try:
        with pytest.raises(SystemExit):
            main(["run", str(workshop.file), "--log-format", "json"])
    finally:
        structlog.reset_defaults()

    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["event"] for line in lines][:1] == ["job_started"]
    assert all({"level", "timestamp", "logger"} <= set(line) for line in lines)
