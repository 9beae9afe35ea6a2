"""What compressing the digits network costs in accuracy, over the seeds of the pages' tables."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.benchmark

DOCS = Path(__file__).parents[2] / "docs"
MEAN = re.compile(r"^\| mean \| ([\d.]+) % \| ([\d.]+) % \| (-?[\d.]+) \| ([\d.]+) % \|$", re.M)
TAUGHT = re.compile(r"^\| mean \|" + 3 * r" ([\d.]+) % \|" + r" (-?[\d.]+) \|$", re.M)
WHOLE = re.compile(
    r"^\| mean \| ([\d.]+) % \| ([\d.]+) % \| (-?[\d.]+) \| ([\d.]+) % \| ([\d.]+) % \|$", re.M
)


def means_of(name, *arguments, mean=MEAN):
    """The rows of means that one of the digits' scripts prints."""
    script = DOCS / "examples" / "digits" / name
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script), *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    print(done.stdout)  # noqa: T201  # the result
    return [tuple(map(float, row)) for row in mean.findall(done.stdout)]


def test_four_fifths_of_the_convolutions_weights_cost_less_than_a_point(record_property):
    pytest.importorskip("sklearn")
    [(dense, _, lost, gone)] = means_of("prune_table.py")
    record_property("points_lost", lost)
    assert dense > 98
    assert gone > 80
    assert lost < 1
    # Processors round differently, so another machine may read a few images otherwise.
    [(_, _, shown, _)] = MEAN.findall((DOCS / "examples" / "digits.md").read_text(encoding="utf-8"))
    assert abs(lost - float(shown)) < 0.5


def test_eight_bits_cost_less_than_half_a_point_and_four_bits_less_than_one(record_property):
    pytest.importorskip("sklearn")
    eight, four = means_of("quantize_table.py")
    for (dense, _, lost, size), bar, largest in ((eight, 0.5, 26), (four, 1, 14)):
        record_property("points_lost", lost)
        assert dense > 98
        assert size < largest
        assert lost < bar


def test_a_teacher_is_worth_five_points_where_a_hundred_images_have_labels(record_property):
    pytest.importorskip("sklearn")
    [(teacher, _, distilled, gained)] = means_of("distill_table.py", mean=TAUGHT)
    record_property("points_gained", gained)
    assert teacher > 98
    assert distilled > 97.5
    assert gained > 5


def test_on_the_same_images_a_teacher_is_worth_two_points(record_property):
    pytest.importorskip("sklearn")
    [(_, _, _, gained)] = means_of("distill_table.py", "--same-images", mean=TAUGHT)
    record_property("points_gained", gained)
    assert gained > 2


def test_filters_bits_and_a_teacher_from_one_file_cost_less_than_a_point(record_property):
    pytest.importorskip("sklearn")
    [(dense, _, lost, gone, size)] = means_of("everything_table.py", mean=WHOLE)
    record_property("points_lost", lost)
    assert dense > 98
    assert gone > 75
    assert size < 26
    assert lost < 1
