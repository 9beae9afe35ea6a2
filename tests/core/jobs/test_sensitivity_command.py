"""``tersely sensitivity``: a job's layers, in a folder of their own."""

import json
from typing import Any

import pytest
from click.testing import CliRunner
from messages.files import OUTPUT_ERROR

from tersely.cli.main import cli


def call(*arguments: str) -> Any:
    return CliRunner().invoke(cli, ["sensitivity", *arguments], catch_exceptions=False)


def test_the_job_is_measured_and_the_findings_are_written(workshop: Any) -> None:
    pytest.importorskip("matplotlib")
    workshop.write()

    result = call(str(workshop.file), "--ratios", "0.25,0.5")

    folder = workshop.folder / "runs" / "first-sensitivity"
    found = json.loads((folder / "sensitivity.json").read_text())
    assert result.exit_code == 0
    assert "  4 measured\n" in result.output
    assert "loss of quality, in percent of the dense" in result.output
    assert [(one["layer"], one["level"]) for one in found["measured"]] == [
        ("0", 0.25),
        ("0", 0.5),
        ("2", 0.25),
        ("2", 0.5),
    ]
    assert (folder / "sensitivity.svg").exists()
    assert "train" not in workshop.diary()


def test_quiet_it_prints_the_table_alone(workshop: Any) -> None:
    result = call(str(workshop.file), "--quiet", "--no-plot")

    assert result.output.startswith("pruning: loss of quality")


def test_the_outputs_error_counts_where_it_is_asked_for(workshop: Any) -> None:
    workshop.write(
        data={"evaluate": "toy_parts:evaluate", "calibration": "toy_parts:batches"}, train=None
    )

    result = call(str(workshop.file), "--quiet", "--no-plot", "--by-output")

    assert result.output.startswith(f"pruning: {OUTPUT_ERROR}")


def test_a_second_call_measures_nothing_again(workshop: Any) -> None:
    call(str(workshop.file), "--quiet", "--no-plot", "--ratios", "0.5")
    workshop.diary()

    call(str(workshop.file), "--quiet", "--no-plot", "--ratios", "0.5")

    assert workshop.diary() == ["build", "evaluate"]


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--ratios", "half", "'half': expected numbers with commas between them"),
        ("--ratios", "0.5,1.5", "1.5 is not between 0 and 1"),
        ("--bits", "8,32", "32 is not between 1 and 16"),
    ],
)
def test_levels_that_make_no_sense_are_wrong_usage(
    workshop: Any, option: str, value: str, said: str
) -> None:
    result = CliRunner().invoke(cli, ["sensitivity", str(workshop.file), option, value])

    assert result.exit_code == 2
    assert said in result.output
