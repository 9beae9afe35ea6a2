"""What tersely-granularity says of itself."""

import subprocess
import sys

import pytest
from jsonschema import Draft202012Validator

import tersely


def info(name):
    return tersely.registry().granularities.info(name)


def test_six_granularities_are_known():
    record = tersely.registry().granularities.record
    names = ["block", "group", "in_channel", "n_m", "out_channel", "per_channel"]
    assert {record(name).distribution for name in names} == {"tersely-granularity"}


def test_the_face_imports_no_torch():
    code = "import sys, tersely_granularity; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize("name", ["in_channel", "out_channel"])
def test_weight_channels_divide_parameters_only(name):
    assert info(name).target_kinds == ("parameter", "buffer")


@pytest.mark.parametrize("name", ["block", "n_m", "group"])
def test_a_schema_of_values_is_itself_valid(name):
    Draft202012Validator.check_schema(info(name).values)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("block", [4, 4]),
        ("block", [-1]),
        ("block", [1, -1, -1, -1]),
        ("block", [[4, 4]]),
        ("block", [[1, -1], "back"]),
        ("block", [[1], "back", -1]),
        ("block", [[4], "front", 2]),
        ("n_m", "2:4"),
        ("n_m", "16:32"),
        ("group", {"group": 128}),
    ],
)
def test_a_legal_value_is_accepted_by_one_granularity_alone(name, value):
    accepting = [
        other
        for other in ("block", "n_m", "group")
        if Draft202012Validator(info(other).values).is_valid(value)
    ]
    assert accepting == [name]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("block", []),
        ("block", [0, 4]),
        ("block", [-2]),
        ("block", [1.5]),
        ("block", ["4"]),
        ("block", [[4], "middle"]),
        ("block", [[4], "back", 0]),
        ("block", [[4], "back", 1, 1]),
        ("block", [[4], 1]),
        ("n_m", "2:0"),
        ("n_m", "2-4"),
        ("n_m", "02:4"),
        ("n_m", 24),
        ("group", {"group": 0}),
        ("group", {"group": "all"}),
        ("group", {"group": 4, "size": 2}),
        ("group", {}),
    ],
)
def test_an_illegal_value_is_refused(name, value):
    assert not Draft202012Validator(info(name).values).is_valid(value)
