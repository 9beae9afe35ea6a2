"""The measured table of the digits: the script that prints it runs, and the page adds up."""

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


@pytest.mark.slow
def test_the_script_prints_a_row_for_a_seed_and_the_mean(tmp_path):
    pytest.importorskip("sklearn")
    folder = tmp_path / "digits"
    shutil.copytree(
        DOCS / "examples" / "digits",
        folder,
        ignore=shutil.ignore_patterns(".cache", "runs", "__pycache__"),
    )
    command = [sys.executable, "-W", "error", "prune_table.py"]
    command += ["--seeds", "1", "--epochs", "1", "--fine-tuning", "2"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    rows = rows_of(done.stdout)
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
