"""Histograms whose bins merge exactly, in whatever order values come."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tersely
from tersely_quantization.observers.by_name import make_observer
from tersely_quantization.observers.histogram import count_values, merge_counts

BY_HISTOGRAM = ["percentile", "histogram", "mse"]


def filled(statistics):
    """Edges, those nearer to zero, of the bins that hold something, with their counts."""
    (counts,) = statistics["counts"].reshape(1, -1)
    bins = len(counts)
    width = 2.0 ** (int(statistics["exponent"]) + 1) / bins
    return {(int(b) - bins // 2) * width: int(counts[b]) for b in counts.nonzero().flatten()}


def test_values_are_counted_in_bins_that_divide_the_next_power_of_two():
    # The largest magnitude is 3, so R = 4 and 16 bins are 0.5 wide.
    found = count_values(torch.tensor([0.0, 0.4, 0.5, -0.1, -3.0, 2.9]), (-1,), 16)

    assert filled(found) == {-3.0: 1, 0.0: 3, 0.5: 1, 2.5: 1}
    assert int(found["exponent"]) == 2


def test_a_magnitude_that_is_a_power_of_two_is_inside():
    # R has to be above 1, so that 1 has a bin of its own.
    found = count_values(torch.tensor([1.0, -1.0]), (-1,), 16)

    assert filled(found) == {-1.0: 1, 1.0: 1}
    assert int(found["exponent"]) == 1


def test_zeros_alone_leave_the_range_to_what_comes_later():
    zeros = count_values(torch.zeros(5), (-1,), 16)

    found = merge_counts(zeros, count_values(torch.tensor([0.2]), (-1,), 16))

    assert filled(found) == {0.0: 5, 0.1875: 1}
    assert int(found["exponent"]) == -2


def test_neighbouring_bins_become_one_when_the_range_doubles():
    # R = 1: bins of 0.125. R = 2: bins of 0.25; 0.3 and 0.4 meet in the one from 0.25.
    small = count_values(torch.tensor([0.3, 0.4, -0.3, 0.9]), (-1,), 16)
    assert filled(small) == {-0.25: 1, 0.25: 1, 0.375: 1, 0.875: 1}

    found = merge_counts(small, count_values(torch.tensor([1.5]), (-1,), 16))

    assert filled(found) == {-0.25: 1, 0.25: 2, 0.75: 1, 1.5: 1}


def test_each_block_has_bins_and_a_range_of_its_own():
    found = count_values(torch.tensor([[0.4, 0.3], [40.0, 0.0]]), (1, -1), 16)

    assert found["counts"].shape == (2, 1, 16)
    assert found["exponent"].tolist() == [[-1], [6]]
    assert found["counts"].sum(-1).tolist() == [[2], [2]]


@settings(deadline=None)
@given(
    st.lists(
        st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=1, max_size=6),
        min_size=3,
        max_size=3,
    )
)
def test_the_order_of_batches_does_not_matter(batches):
    parts = [count_values(torch.tensor(batch), (-1,), 64) for batch in batches]
    whole = count_values(torch.tensor([value for batch in batches for value in batch]), (-1,), 64)

    for one, two, three in itertools.permutations(parts):
        for found in (
            merge_counts(merge_counts(one, two), three),
            merge_counts(one, merge_counts(two, three)),
        ):
            assert {name: tensor.tolist() for name, tensor in found.items()} == {
                name: tensor.tolist() for name, tensor in whole.items()
            }


@pytest.mark.parametrize("size", [(-1, -1), (1, -1), (-1, 1), (4, 8)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_every_value_is_counted_in_its_own_block(size, dtype):
    values = torch.randn(8, 16, generator=torch.Generator().manual_seed(0)).to(dtype)

    found = count_values(values, size, 256)

    for place in itertools.product(*map(range, found["low"].shape)):
        (block,) = tersely.to_blocks(values, size)[place].reshape(1, -1)
        alone = count_values(block, (-1,), 256)
        assert torch.equal(found["counts"][place], alone["counts"].reshape(-1))


def test_more_values_than_one_piece_are_counted_alike():
    values = torch.randn(3, 50_000, generator=torch.Generator().manual_seed(0))

    rows = count_values(values, (1, -1), 512)
    parts = [count_values(part, (1, -1), 512) for part in values.split(10_000, dim=1)]

    found = parts[0]
    for part in parts[1:]:
        found = merge_counts(found, part)
    assert torch.equal(rows["counts"], found["counts"])


def test_processes_join_as_batches_merge():
    observer = make_observer("percentile")
    parts = [observer.observe(torch.tensor([value]), (-1,)) for value in (0.1, 7.0, -2.0)]

    found = observer.join(parts)

    assert int(found["counts"].sum()) == 3
    assert (found["low"].item(), found["high"].item()) == (-2.0, 7.0)


def test_many_blocks_have_fewer_bins():
    # 4096 bins for each of 2**13 blocks would be 2**25 counters; 2**24 is the most there are.
    found = count_values(torch.ones(2**13, 1), (1, -1), 4096)

    assert found["counts"].shape[-1] == 2048


def test_bins_that_cannot_merge_are_refused():
    with pytest.raises(ValueError, match="bins 100: expected a power of two, at least 16"):
        make_observer("percentile", {"bins": 100})


@pytest.mark.parametrize("name", BY_HISTOGRAM)
@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), float("-inf")])
def test_values_that_are_no_numbers_are_reported_with_the_target(name, wrong, make_target):
    observer = make_observer(name)
    good = observer.observe(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), (1, -1))
    bad = observer.observe(torch.tensor([[1.0, 2.0], [wrong, wrong]]), (1, -1))
    statistics = observer.merge(bad, good)

    with pytest.raises(tersely.CalibrationError) as caught:
        observer.range(statistics, make_target(size=(1, -1)))

    assert str(caught.value) == (
        "fc._output_: 2 of the observed values are NaN or infinite, in 1 of its 2 blocks; find out "
        "which batch or layer produces them"
    )


@pytest.mark.parametrize("name", ["min_max", "moving_average", *BY_HISTOGRAM])
@pytest.mark.parametrize("scheme", ["symmetric", "affine"])
def test_a_block_of_zeros_has_the_range_zero(name, scheme, make_target):
    observer = make_observer(name)
    statistics = observer.observe(torch.tensor([[0.0, 0.0], [1.0, -1.0]]), (1, -1))

    low, high = observer.range(statistics, make_target(scheme=scheme, size=(1, -1)))

    assert (low[0].item(), high[0].item()) == (0.0, 0.0)
    assert low.shape == high.shape == (2, 1)


@pytest.mark.parametrize("name", ["min_max", "moving_average", *BY_HISTOGRAM])
def test_observing_writes_to_no_value(name, make_target):
    values = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    before = values.clone()
    observer = make_observer(name)

    first = observer.observe(values, (1, -1))
    kept = {key: tensor.clone() for key, tensor in first.items()}
    observer.range(observer.merge(first, first), make_target(size=(1, -1)))

    assert torch.equal(values, before)
    assert all(torch.equal(first[key], kept[key]) for key in kept)
