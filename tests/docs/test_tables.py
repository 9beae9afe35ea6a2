"""The measured tables of the digits: the scripts that print them run, and the pages add up."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
ROW = re.compile(
    r"^\| (\d+|mean) \| ([\d.]+) % \| ([\d.]+) % \| (-?[\d.]+) \| ([\d.]+) % \|$", re.MULTILINE
)


def rows_of(text):
    """Name of each row -> dense, pruned, points lost and share gone."""
    return {row[0]: tuple(map(float, row[1:])) for row in ROW.findall(text)}


def run_script(folder, name, *arguments, seeds=1, epochs=1):
    """What one of the digits' scripts prints, run in a copy of its folder."""
    copy = folder / "digits"
    shutil.copytree(
        DOCS / "examples" / "digits",
        copy,
        ignore=shutil.ignore_patterns(".cache", "runs", "__pycache__"),
    )
    command = [sys.executable, "-W", "error", name, "--seeds", str(seeds), "--epochs", str(epochs)]
    done = subprocess.run(
        [*command, *arguments], cwd=copy, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.slow
def test_the_script_prints_a_row_for_a_seed_and_the_mean(tmp_path):
    pytest.importorskip("sklearn")
    rows = rows_of(run_script(tmp_path, "prune_table.py", "--fine-tuning", "2"))
    assert list(rows) == ["0", "mean"]
    assert rows["0"] == rows["mean"]
    # 8 * 9 of 16 * 9, 24 * 16 * 9 of 32 * 16 * 9 and 53 * 32 * 9 of 64 * 32 * 9 weights:
    # 18,792 / 23,184.
    assert rows["0"][3] == 81.06


def test_the_table_of_the_page_adds_up():
    rows = rows_of((DOCS / "examples" / "digits.md").read_text(encoding="utf-8"))
    mean = rows.pop("mean")
    assert list(rows) == ["0", "1", "2", "3", "4"]
    for dense, pruned, lost, _ in (*rows.values(), mean):
        assert lost == pytest.approx(dense - pruned, abs=0.011)
    for column in range(4):
        values = [row[column] for row in rows.values()]
        assert mean[column] == pytest.approx(sum(values) / 5, abs=0.006)
    assert mean[2] < 1


@pytest.mark.slow
def test_the_quantizing_script_prints_two_tables(tmp_path):
    pytest.importorskip("sklearn")
    printed = run_script(tmp_path, "quantize_table.py", "--fine-tuning", "1")
    tables = [rows_of(text) for text in printed.split("\n\n")]
    assert [list(rows) for rows in tables] == [["0", "mean"]] * 2
    # 144 + 4,608 + 18,432 + 2,560 weights of 8 and of 4 bits, 122 scales of 32 bits and as many
    # biases of 32 bits, against 25,866 floats.
    assert [rows["0"][3] for rows in tables] == [25.83, 13.38]


def test_the_tables_of_the_quantization_page_add_up_and_meet_their_bars():
    page = (DOCS / "quantization.md").read_text(encoding="utf-8")
    after, during = (
        rows_of("| seed | dense |" + text) for text in page.split("| seed | dense |")[1:]
    )
    for rows, bar in ((after, 0.5), (during, 1.0)):
        mean = rows.pop("mean")
        assert list(rows) == ["0", "1", "2", "3", "4"]
        for dense, quantized, lost, _ in (*rows.values(), mean):
            assert lost == pytest.approx(dense - quantized, abs=0.011)
        for column in range(4):
            values = [row[column] for row in rows.values()]
            assert mean[column] == pytest.approx(sum(values) / 5, abs=0.006)
        assert mean[2] < bar
