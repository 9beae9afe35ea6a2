import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tersely.masking.rows import PARTITIONED, keep_highest


def keep_by_sorting(rows, masked):
    kept = torch.ones_like(rows, dtype=torch.bool)
    return kept.scatter(1, rows.sort(dim=1, stable=True).indices[:, :masked], False)


def test_the_lowest_two_of_four_are_masked_in_every_row():
    rows = torch.tensor([[4.0, 1.0, 3.0, 2.0], [0.0, 5.0, 6.0, 1.0]])
    assert keep_highest(rows, 2).tolist() == [
        [True, False, True, False],
        [False, True, True, False],
    ]


@pytest.mark.parametrize("columns", [4, 8, 16, 17, 100, PARTITIONED, PARTITIONED + 1])
@pytest.mark.parametrize("count", [1, 3])
def test_equal_values_are_masked_from_the_lowest_index(columns, count):
    kept = keep_highest(torch.ones(count, columns), columns // 2)
    expected = [False] * (columns // 2) + [True] * (columns - columns // 2)
    assert kept.tolist() == [expected] * count


def test_a_count_of_zero_keeps_everything():
    assert keep_highest(torch.rand(2, 3), 0).all()


def test_a_count_of_all_masks_everything():
    assert not keep_highest(torch.rand(2, 3), 3).any()


def test_rows_of_columns_that_lie_apart_in_memory_are_ranked_alike():
    rows = torch.rand(6, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(keep_highest(rows.T.contiguous().T, 2), keep_highest(rows, 2))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("columns", [4, 40, PARTITIONED, PARTITIONED + 1])
def test_every_float_type_is_ranked(dtype, columns):
    rows = torch.rand(50, columns, generator=torch.Generator().manual_seed(0)).to(dtype)
    for masked in (1, 2, columns // 2, columns - 1):
        assert torch.equal(keep_highest(rows, masked), keep_by_sorting(rows, masked))


@settings(deadline=None)
@given(st.integers(1, 20), st.integers(1, 24), st.data())
def test_rows_are_kept_as_a_stable_sort_would_keep_them(count, columns, data):
    levels = st.lists(st.integers(0, 3), min_size=count * columns, max_size=count * columns)
    rows = torch.tensor(data.draw(levels), dtype=torch.float32).reshape(count, columns)
    masked = data.draw(st.integers(0, columns))
    assert torch.equal(keep_highest(rows, masked), keep_by_sorting(rows, masked))


# As many values as this are compared column by column, fewer all at once.
MANY = 16_384


@pytest.mark.parametrize("columns", [4, 8])
def test_equal_values_of_many_rows_are_masked_from_the_lowest_index(columns):
    kept = keep_highest(torch.ones(MANY // columns, columns), columns // 2)
    half = columns // 2
    assert not kept[:, :half].any()
    assert kept[:, half:].all()


class Elsewhere(torch.Tensor):
    """Values that say that they are on another device, so what is written for one is run."""

    @property
    def is_cpu(self):
        return False


@pytest.mark.parametrize("elsewhere", [False, True], ids=["here", "on another device"])
@pytest.mark.parametrize(("masked", "columns"), [(1, 2), (2, 4), (5, 8), (7, 16), (3, 17)])
def test_many_rows_are_kept_as_a_stable_sort_would_keep_them(masked, columns, elsewhere):
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(0, 3, (MANY // columns, columns), generator=generator).float()
    given = rows.as_subclass(Elsewhere) if elsewhere else rows
    kept = keep_highest(given, masked).as_subclass(torch.Tensor)
    assert torch.equal(kept, keep_by_sorting(rows, masked))


@pytest.mark.parametrize("columns", [4, 8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_expendable_rows_of_many_values_get_the_same_decisions(columns, dtype):
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(0, 3, (MANY // columns, columns), generator=generator).to(dtype)
    expected = keep_highest(rows.clone(), columns // 2)
    kept = keep_highest(rows, columns // 2, is_expendable=True)
    assert torch.equal(kept != 0, expected)
    assert (kept.data_ptr() == rows.data_ptr()) == (dtype != torch.bfloat16)
