import pytest
import torch

from tersely.arithmetic import levels, ranges
from tersely.arithmetic.ranges import are_finite, block_range, data_range

VALUES = torch.tensor([[1.0, -2.0, 3.0, 4.0], [0.0, 9.0, -5.0, 6.0]])


@pytest.mark.parametrize(
    ("size", "low", "high"),
    [
        ((-1, -1), [[-5.0]], [[9.0]]),
        ((1, -1), [[-2.0], [-5.0]], [[4.0], [9.0]]),
        ((-1, 1), [[0.0, -2.0, -5.0, 4.0]], [[1.0, 9.0, 3.0, 6.0]]),
        ((1, 2), [[-2.0, 3.0], [0.0, -5.0]], [[1.0, 4.0], [9.0, 6.0]]),
        ((2, 2), [[-2.0, -5.0]], [[9.0, 6.0]]),
        ((1, 1), VALUES.tolist(), VALUES.tolist()),
    ],
)
@pytest.mark.parametrize("values", [VALUES, VALUES.T.contiguous().T], ids=["dense", "apart"])
def test_every_block_has_its_smallest_and_largest_value(size, low, high, values):
    found = block_range(values, size)
    assert [end.tolist() for end in found] == [low, high]


@pytest.mark.parametrize("size", [(-1, -1), (1, -1), (2, 2)])
@pytest.mark.parametrize("is_apart", [False, True])
def test_nan_is_seen(size, is_apart):
    values = VALUES.T.contiguous().T if is_apart else VALUES
    values = values.clone()
    values[1, 1] = float("nan")
    assert all(end.isnan().any() for end in block_range(values, size))


@pytest.mark.parametrize("size", [(1, -1), (1, 2), (2, 2)])
@pytest.mark.parametrize("run", [1, 3, 8, 100])
def test_a_tensor_that_is_read_in_runs_has_the_same_ranges(monkeypatch, size, run):
    values = torch.randn(10, 4, generator=torch.Generator().manual_seed(0))
    expected = block_range(values, size)
    monkeypatch.setattr(levels, "_LARGEST_PIECE", 1)
    monkeypatch.setattr(ranges, "_LARGEST_RUN", run)
    found = block_range(values, size)
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


LARGEST = torch.finfo(torch.float32).max


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        ([-1.0, 0.0], [2.0, 0.0], True),
        ([-LARGEST, 0.0], [LARGEST, LARGEST], True),
        ([-1.0, float("-inf")], [2.0, 0.0], False),
        ([-1.0, float("inf")], [2.0, float("inf")], False),
        ([float("nan"), 0.0], [2.0, 0.0], False),
    ],
)
def test_ranges_are_finite_where_all_ends_are_however_far_apart(low, high, expected):
    assert are_finite(torch.tensor(low), torch.tensor(high)) is expected


INF, NAN = float("inf"), float("nan")


@pytest.mark.parametrize(
    ("size", "is_data", "low", "high"),
    [
        ((-1, -1), [[True], [False]], [[-2.0]], [[4.0]]),
        ((-1, -1), [[True, False, True, True]], [[-5.0]], [[6.0]]),
        ((-1, -1), [[True, True, True, False], [False, False, True, False]], [[-5.0]], [[3.0]]),
        ((-1, -1), [[False], [False]], [[INF]], [[-INF]]),
        ((-1, 1), [[False], [True]], [[0.0, 9.0, -5.0, 6.0]], [[0.0, 9.0, -5.0, 6.0]]),
        ((1, -1), [[True], [False]], [[-2.0], [INF]], [[4.0], [-INF]]),
        ((1, 2), [[True, True, False, False]], [[-2.0, INF], [0.0, INF]], [[1, -INF], [9, -INF]]),
    ],
)
@pytest.mark.parametrize("padding", [0.0, 100.0, NAN, INF])
def test_every_block_has_the_ends_of_its_data_whatever_is_in_the_padding(
    size, is_data, low, high, padding
):
    marks = torch.tensor(is_data)
    found = data_range(torch.where(marks, VALUES, padding), marks, size)
    assert [end.tolist() for end in found] == [low, high]


@pytest.mark.parametrize("size", [(-1, -1), (-1, 1), (1, 2)])
def test_nan_in_data_is_seen(size):
    values = VALUES.clone()
    values[1, 1] = NAN
    found = data_range(values, torch.tensor([[False], [True]]), size)
    assert all(end.isnan().any() for end in found)
