"""Example inputs in which dimensions that may differ are longer than one."""

from collections import defaultdict, namedtuple

import pytest
import torch

import tersely
from tersely.exporting.dynamic import shapes_of
from tersely.exporting.lengths import lengthened

ROW = torch.arange(3.0)[None]


def given(example, dynamic_shapes):
    return lengthened(example, shapes_of(example, dynamic_shapes))


def test_one_row_is_given_twice():
    assert torch.equal(given(ROW, "batch"), torch.cat([ROW, ROW]))
    assert torch.equal(given(ROW, ["rows", None]), torch.cat([ROW, ROW]))
    assert torch.equal(given(ROW, {"input": ["rows"]}), torch.cat([ROW, ROW]))


def test_what_is_long_enough_or_fixed_stays():
    two = torch.ones(2, 1)

    assert given(two, "batch") is two
    assert given(ROW, None) is ROW
    assert given(ROW, [None, "time"]) is ROW


def test_tensors_are_found_wherever_they_are():
    pair = namedtuple("Pair", "a b")(ROW, 3)
    found = given({"x": [ROW], "y": {"z": ROW}, "n": 3}, "batch")

    assert found["x"][0].shape == found["y"]["z"].shape == (2, 3)
    assert found["n"] == 3
    shapes = {"x": type(pair)({0: torch.export.Dim("rows")}, None)}
    kept = lengthened({"x": pair}, shapes)["x"]
    assert type(kept) is type(pair)
    assert kept.a.shape == (2, 3)


def test_one_tensor_in_two_places_has_its_own_length_in_each():
    one = torch.ones(1, 1)

    first, second = given((one, one), (["rows", None], [None, "time"]))

    assert (first.shape, second.shape) == ((2, 1), (1, 2))


def test_mappings_of_any_class_are_taken():
    held = defaultdict(list, x=torch.ones(4, 3))
    assert given(held, "batch") is held

    found = given({"one": defaultdict(list, x=ROW)}, "batch")["one"]
    assert (type(found), found["x"].shape) == (defaultdict, (2, 3))


def test_dimensions_of_one_name_have_one_length():
    example = {"first": torch.ones(4, 3), "second": ROW}

    with pytest.raises(
        tersely.ExportError,
        match=r"'batch' in first, where it is 4 long, and in second, where it is 1",
    ):
        given(example, "batch")
