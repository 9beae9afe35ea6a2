"""What compressing the digits network costs in accuracy, over the seeds of the page's table."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.benchmark

DOCS = Path(__file__).parents[2] / "docs"
MEAN = re.compile(r"^\| mean \| ([\d.]+) % \| ([\d.]+) % \| (-?[\d.]+) \| ([\d.]+) % \|$", re.M)


def test_four_fifths_of_the_convolutions_weights_cost_less_than_a_point(record_property):
    pytest.importorskip("sklearn")
    script = DOCS / "examples" / "digits" / "prune_table.py"
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    print(done.stdout)  # noqa: T201  # the result
    [(dense, _, lost, gone)] = MEAN.findall(done.stdout)
    record_property("points_lost", float(lost))
    assert float(dense) > 98
    assert float(gone) > 80
    assert float(lost) < 1
    # Processors round differently, so another machine may read a few images otherwise.
    [(_, _, shown, _)] = MEAN.findall((DOCS / "examples" / "digits.md").read_text(encoding="utf-8"))
    assert abs(float(lost) - float(shown)) < 0.5
