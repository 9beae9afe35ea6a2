"""The ranges that observers find, and how they are chosen by name."""

import math

import pytest
import torch
from jsonschema import Draft202012Validator

import tersely
from tersely_quantization.observers.by_name import make_observer
from tersely_quantization.observers.divergence import least_divergent
from tersely_quantization.schemas import OBSERVERS


def observed(name, values, target, **options):
    observer = make_observer(name, options)
    size = target.blocks.size if values.ndim == 2 else (-1,)
    return observer.range(observer.observe(values, size), target)


def test_a_moving_average_starts_with_the_first_batch_and_follows_in_order(make_target):
    observer = make_observer("moving_average", {"decay": 0.75})
    first, second = (
        observer.observe(torch.tensor(values), (-1,)) for values in ([-4.0, 8.0], [0.0, 16.0])
    )

    low, high = observer.range(observer.merge(first, second), make_target())

    # 0.75 * -4 + 0.25 * 0, and 0.75 * 8 + 0.25 * 16
    assert (low.item(), high.item()) == (-3.0, 10.0)


def test_processes_count_alike_in_a_moving_average():
    observer = make_observer("moving_average")
    parts = [observer.observe(torch.tensor([low, 3.0]), (-1,)) for low in (-1.0, -2.0, 0.0)]

    assert observer.join(parts)["low"].item() == -1.0


def test_a_percentile_leaves_out_the_largest_magnitudes(make_target):
    # 1 of 100 values is left out. 99 values lie below 1, bins are 8 / 2048 wide, so the last of
    # them, 0.99, is in the bin that ends at 254 * 8 / 2048 = 0.9921875.
    values = torch.tensor([*(step / 100 for step in range(1, 100)), 5.0])

    low, high = observed("percentile", values, make_target(), percentile=0.99)

    assert high.item() == 254 * 8 / 2048
    assert low.item() == pytest.approx(0.01)


def test_an_affine_percentile_leaves_out_half_at_either_end(make_target):
    # 2 of 100: -50 and 60. R = 64, bins are 128 / 4096 wide; the others are -1 and 1.
    values = torch.tensor([-50.0, 60.0, *[-1.0, 1.0] * 49])

    low, high = observed("percentile", values, make_target("uint8", "affine"), percentile=0.98)

    assert (low.item(), high.item()) == (-1.0 - 128 / 4096, 1.0 + 128 / 4096)


def test_the_percentile_one_keeps_everything(make_target):
    values = torch.tensor([-0.3, 0.2, 7.7])

    low, high = observed("percentile", values, make_target(), percentile=1)

    assert torch.equal(torch.cat([low, high]), torch.tensor([-0.3, 7.7]))


def test_a_share_counts_as_it_is_written(make_target):
    # 1 - 0.9 is below 0.1 in binary; one of ten values is left out nevertheless.
    values = torch.tensor([1.0] * 9 + [100.0])

    _, high = observed("percentile", values, make_target(), percentile=0.9)

    assert high.item() == 1.0 + 128 / 2048


def divergence(counts, kept, levels):
    """The slides, one bin after the other."""
    reference = counts[:kept]
    reference[-1] += sum(counts[kept:])
    run, quantized = kept // levels, []
    for level in range(levels):
        end = (level + 1) * run if level < levels - 1 else kept
        part = counts[level * run : end]
        filled = sum(count > 0 for count in part)
        quantized += [sum(part) / filled if count else 0.0 for count in part]
    total, inside = sum(reference), sum(quantized)
    result = 0.0
    for p, q in zip(reference, quantized, strict=True):
        if p and not q:
            return math.inf
        if p:
            result += p / total * math.log((p / total) / (q / inside))
    return result


@pytest.mark.parametrize("levels", [2, 4, 8])
@pytest.mark.parametrize("seed", range(4))
def test_the_least_divergent_threshold_is_that_of_the_slides(levels, seed):
    generator = torch.Generator().manual_seed(seed)
    counts = torch.randint(0, 50, (32,), generator=generator).double()
    counts *= torch.exp(-torch.arange(32) / 6.0) > torch.rand(32, generator=generator) / 4
    counts[31] = 1

    found = least_divergent(counts[None], torch.tensor([32]), levels)

    by_hand = {kept: divergence(counts.tolist(), kept, levels) for kept in range(levels, 33)}
    assert by_hand[int(found)] == pytest.approx(min(by_hand.values()))


def test_one_outlier_is_clipped_by_divergence_and_by_squared_error(make_target):
    values = torch.randn(20_000, generator=torch.Generator().manual_seed(0))
    values = torch.cat([values, torch.tensor([60.0])])

    for name in ("histogram", "mse"):
        low, high = observed(name, values, make_target("int4"))
        assert 1 < high.item() < 6
        assert low.item() >= -high.item()


def test_zeros_do_not_move_the_divergence(make_target):
    values = torch.randn(20_000, generator=torch.Generator().manual_seed(0))
    sparse = torch.cat([values, torch.zeros(60_000)])

    assert observed("histogram", sparse, make_target()) == observed(
        "histogram", values, make_target()
    )


def squared_error(values, low, high, target):
    qparams = tersely.choose_qparams(low, high, target)
    return (tersely.fake_quantize(values, qparams) - values).square().sum().item()


@pytest.mark.parametrize(("dtype", "scheme"), [("int4", "symmetric"), ("uint4", "affine")])
def test_the_squared_error_of_activations_is_near_that_of_the_best_range(
    dtype, scheme, make_target
):
    values = torch.distributions.StudentT(torch.tensor(3.0))
    torch.manual_seed(0)
    values = values.sample((5000,)) + (2.0 if scheme == "affine" else 0.0)
    target = make_target(dtype, scheme, size=(-1,))

    found = squared_error(values, *observed("mse", values, target), target)

    best = min(
        squared_error(values, values.min() * low, values.max() * high, target)
        for low in torch.arange(0.02, 1.01, 0.02)
        for high in (torch.arange(0.02, 1.01, 0.02) if scheme == "affine" else [low])
    )
    assert found <= 1.02 * best


def test_the_squared_error_of_a_parameter_is_that_of_its_own_values(make_target):
    # int2 has -1, 0 and 1 times the scale. Row one: scale 1 leaves 0 and 9 * 0; the outlier of row
    # two, 4, would cost the eight ones a loss of 8 * 1 at scale 4, and costs (4 - 1)^2 = 9 at 1.
    weight = torch.tensor([[1.0] * 9, [1.0] * 8 + [4.0]])
    target = make_target("int2", kind="parameter", size=(1, -1), tensor=weight)

    low, high = observed("mse", weight, target)

    assert high[0].item() == 1.0
    # (4 - s)^2 + 8 (1 - s)^2 is least at s = 12 / 9 with 8, as good as scale 4 with zeros.
    error = (tersely.fake_quantize(weight, tersely.choose_qparams(low, high, target)) - weight)[1]
    assert error.square().sum().item() == pytest.approx(8.0, rel=1e-3)


@pytest.mark.parametrize("dtype", ["int8", "uint1", "int16", "float8_e4m3fn", "float8_e5m2"])
@pytest.mark.parametrize("scheme", ["symmetric", "affine"])
@pytest.mark.parametrize("name", list(OBSERVERS))
def test_every_observer_finds_a_range_for_every_type(name, dtype, scheme, make_target):
    values = torch.randn(4, 64, generator=torch.Generator().manual_seed(0))
    target = make_target(dtype, scheme, size=(1, -1))

    low, high = observed(name, values, target)

    assert bool((low >= values.amin(1, keepdim=True)).all())
    assert bool((high <= values.amax(1, keepdim=True)).all())
    assert bool((low < 0).all() and (high > 0).all())
    tersely.choose_qparams(low, high, target)


def test_the_range_of_a_value_alone_ends_there(make_target):
    for name in OBSERVERS:
        _, high = observed(name, torch.tensor([0.7]), make_target("uint8", "affine"))
        assert high.item() == pytest.approx(0.7)


def test_an_unknown_observer_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match="no observer is called 'minmax'; there are min_max, mov"):
        make_observer("minmax")


def test_options_of_another_observer_are_refused():
    with pytest.raises(ValueError, match=r"observer 'mse': .*unexpected"):
        make_observer("mse", {"decay": 0.9})


@pytest.mark.parametrize("quantizer", ["ptq", "lsq", "lsq_plus", "dorefa"])
def test_the_schema_takes_the_options_of_the_chosen_observer_only(quantizer):
    schema = Draft202012Validator(tersely.registry().quantizers.info(quantizer).options)

    assert schema.is_valid({})
    assert schema.is_valid({"observer": "mse", "observer_options": {"bins": 1024}})
    assert schema.is_valid({"observer": "percentile", "observer_options": {"percentile": 0.999}})
    assert schema.is_valid({"observer": "moving_average", "observer_options": {"decay": 0.9}})
    assert not schema.is_valid({"observer": "mse", "observer_options": {"decay": 0.9}})
    assert not schema.is_valid({"observer": "histogram", "observer_options": {"bins": 1000}})
    assert not schema.is_valid({"observer_options": {"decay": 0.9}})
    assert not schema.is_valid({"observer": "median"})


@pytest.mark.parametrize("name", list(OBSERVERS))
def test_a_quantizer_uses_the_observer_that_it_was_given(name, make_target):
    quantizer = tersely.registry().quantizers["ptq"](observer=name)

    assert type(quantizer.observer(make_target())) is type(make_observer(name))
