"""Dimensions that may differ, in the words of a job and of torch.export."""

import torch

from tersely.exporting.dynamic import shapes_of

ONE = torch.ones(2, 3)


def names(shapes):
    if isinstance(shapes, dict):
        return {key: names(one) for key, one in shapes.items()}
    if isinstance(shapes, (tuple, list)):
        return type(shapes)(names(one) for one in shapes)
    return getattr(shapes, "__name__", shapes)


def test_none_is_none():
    assert shapes_of(ONE, None) is None


def test_batch_is_the_first_dimension_of_every_tensor():
    assert names(shapes_of(ONE, "batch")) == ({0: "batch"},)
    assert names(shapes_of((ONE, 3, torch.tensor(1.0)), "batch")) == ({0: "batch"}, None, None)
    assert names(shapes_of({"x": ONE, "y": [ONE]}, "batch")) == {
        "x": {0: "batch"},
        "y": [{0: "batch"}],
    }


def test_alike_names_are_one_dimension():
    found = shapes_of({"x": ONE, "y": ONE}, {"x": ["rows", None], "y": [None, "rows"]})

    assert names(found) == {"x": {0: "rows"}, "y": {1: "rows"}}
    assert found["x"][0] is found["y"][1]


def test_one_tensor_takes_its_dimensions_alone():
    assert names(shapes_of(ONE, {0: "rows"})) == ({0: "rows"},)
    assert names(shapes_of(ONE, ["rows", None])) == ({0: "rows"},)


def test_what_torch_takes_is_left_alone():
    rows = torch.export.Dim("rows")

    assert shapes_of((ONE, ONE), ({0: rows}, None)) == ({0: rows}, None)
