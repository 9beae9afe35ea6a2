"""Dimensions that may differ, in the words of a job and of torch.export."""

import pytest
import torch
from torch import nn

import tersely
from tersely.exporting.dynamic import ranges_of, shapes_of

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


def test_a_length_that_the_model_limits_is_read_from_what_torch_suggests():
    said = """Constraints violated (time)! For more information, run with TORCH_LOGS.
  - Not all values of time satisfy the generated guard
Suggested fixes:
  rows = Dim('rows', min=3)
  time = Dim('time', min=2, max=512)

The error above occurred when calling torch.export.export."""

    assert ranges_of(said, {"x": ["rows", "time"]}) == {
        "rows": {"min": 3},
        "time": {"min": 2, "max": 512},
    }
    assert ranges_of(said, {"x": [torch.export.Dim("rows"), "time"]}) is None
    assert ranges_of(said.replace("Dim('rows', min=3)", "4"), {"x": ["rows", "time"]}) is None
    assert ranges_of("it says something else", {"x": ["rows"]}) is None


class Positions(nn.Module):
    """Adds a row of a table to each of up to 8 positions."""

    def __init__(self):
        super().__init__()
        self.table, self.head = nn.Parameter(torch.ones(8, 3)), nn.Linear(3, 2)

    def forward(self, x):
        return self.head(x + self.table[: x.shape[1]])


WEIGHTS = [{"op_types": ["Linear"], "target_names": ["weight"], "sparse_ratio": 0.5}]


@pytest.fixture
def masked(toy_pruners):
    def make(model):
        return tersely.prune(model, WEIGHTS, algorithm="toy")

    return make


def test_a_named_dimension_is_as_long_as_the_model_allows(masked):
    session = masked(nn.Sequential(Positions()))

    program = session.export_program(torch.ones(2, 4, 3), {"input": ["batch", "time"]})

    assert program.module()(torch.ones(1, 8, 3)).shape == (1, 8, 2)
    assert [str(one) for one in program.range_constraints.values()][-1].endswith("8]")


def test_a_dimension_that_the_model_fixes_is_refused_with_what_torch_says(masked):
    session = masked(nn.Sequential(nn.Flatten(0), nn.Linear(6, 2)))

    with pytest.raises(tersely.ExportError, match="Suggested fixes: rows = 2"):
        session.export_program(torch.ones(2, 3), {"input": ["rows", None]})
