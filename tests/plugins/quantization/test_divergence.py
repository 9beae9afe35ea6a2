"""The histogram observer against an independent reading of the published entropy calibration."""

import numpy as np
import pytest
import torch

from tersely_quantization.observers.divergence import divergence_range, least_divergent
from tersely_quantization.observers.histogram import HistogramObserver

BINS, LEVELS = 2048, 128


def entropy(pk, qk):
    """The divergence of Kullback and Leibler between two histograms, in nats."""
    pk, qk = pk / pk.sum(), qk / qk.sum()
    present = pk > 0
    return float((pk[present] * np.log(pk[present] / qk[present])).sum())


def smoothed(histogram):
    # Every empty bin gets a little, which the others give.
    is_empty = histogram == 0
    given = 1e-4 * is_empty.sum() / max((~is_empty).sum(), 1)
    return np.where(is_empty, 1e-4, histogram - given)


def reference_divergence(counts, kept):
    """KL after clipping at `kept` bins, bin by bin as the slides of TensorRT describe it."""
    reference = counts[:kept].astype(float)
    reference[-1] += counts[kept:].sum()
    quantized, length = np.zeros(kept), kept // LEVELS
    for level in range(LEVELS):
        run = slice(level * length, kept if level == LEVELS - 1 else (level + 1) * length)
        is_filled = reference[run] > 0
        if is_filled.any():
            quantized[run] = np.where(is_filled, counts[:kept][run].sum() / is_filled.sum(), 0)
    return entropy(smoothed(reference), smoothed(quantized))


DISTRIBUTIONS = {
    "normal": lambda rng: rng.normal(size=200_000),
    "normal_and_one_outlier": lambda rng: np.append(rng.normal(size=200_000), 200),
    "normal_and_ten_outliers": lambda rng: np.append(rng.normal(size=200_000), [60] * 10),
    "laplace": lambda rng: rng.laplace(size=200_000),
    "uniform": lambda rng: rng.uniform(size=200_000),
    "exponential": lambda rng: rng.exponential(size=200_000),
    "student_t": lambda rng: rng.standard_t(4, size=200_000),
    "lognormal": lambda rng: rng.lognormal(size=200_000),
    "two_modes": lambda rng: np.append(rng.normal(0, 1, 100_000), rng.normal(9, 1, 100_000)),
    "wide_and_narrow": lambda rng: np.append(rng.normal(0, 1, 190_000), rng.normal(0, 8, 10_000)),
}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_no_threshold_that_the_reference_compares_has_less_divergence(name):
    values = np.abs(DISTRIBUTIONS[name](np.random.default_rng(0)))
    counts, _ = np.histogram(values, bins=BINS, range=(0, values.max() * 1.1))
    used = int(counts.nonzero()[0][-1]) + 1
    rows = torch.from_numpy(counts)[None].double()

    kept = int(least_divergent(rows, torch.tensor([used]), LEVELS))

    candidates = [*range(LEVELS, used, 8), used]
    least = min(reference_divergence(counts, one) for one in candidates)
    assert reference_divergence(counts, kept) <= least + 1e-3 * abs(least) + 2e-6


def range_of(values, make_target):
    observer = HistogramObserver(divergence_range)
    target = make_target(size=(-1,))
    return observer.range(observer.observe(values, (-1,)), target)


@pytest.mark.parametrize("outlier", [50.0, 200.0, -1000.0])
def test_one_outlier_among_a_million_is_clipped(outlier, make_target):
    generator = torch.Generator().manual_seed(0)
    values = torch.cat([torch.randn(999_999, generator=generator), torch.tensor([outlier])])

    low, high = range_of(values, make_target)

    assert 4 < max(-float(low), float(high)) < abs(outlier) / 2


def test_nothing_is_clipped_where_every_value_has_a_level_of_its_own(make_target):
    values = torch.tensor([0.0, 1.0, 2.0, 10.0]).repeat(1000)

    _, high = range_of(values, make_target)

    assert float(high) == 10


def test_equally_good_thresholds_leave_the_smallest():
    # Bins 128 to 255 have one bin a level, whatever is kept of the empty ones.
    counts = torch.zeros(1, BINS, dtype=torch.float64)
    counts[0, :40], counts[0, 1600] = torch.arange(40, 0, -1) ** 2, 1

    assert least_divergent(counts, torch.tensor([1601]), LEVELS).tolist() == [LEVELS]


@pytest.mark.parametrize("center", [5.0, -5.0])
def test_values_far_from_zero_are_not_all_clipped_to_one(center, make_target):
    values = torch.randn(10_000, generator=torch.Generator().manual_seed(0)) * 0.1 + center

    low, high = range_of(values, make_target)

    # Between the median and the largest; what lies above the range is the tail of a normal.
    assert 5.1 < max(-float(low), float(high)) <= float(values.abs().max())
