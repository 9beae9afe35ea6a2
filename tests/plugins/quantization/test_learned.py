"""What LSQ and LSQ+ learn: where it starts, what it means, and that nothing breaks it."""

import math

import pytest
import torch

import tersely
from tersely.contracts import OptimizesByName
from tersely.contracts.quantized_forward import LearnsScales
from tersely.contracts.quantizer import ObservesRange

HOSTILE = [float("nan"), float("inf"), float("-inf"), -1e30, 1e38, 0.0, -0.0, 1e-45]


def make(name, **options):
    return tersely.registry().quantizers[name](**options)


def observe(quantizer, target, *batches):
    """Calibrate by hand: the target with its statistics, and what was chosen for it."""
    observer = quantizer.observer(target)
    statistics = None
    for batch in batches:
        found = observer.observe(batch, target.blocks.size)
        statistics = found if statistics is None else observer.merge(statistics, found)
    target = target.evolve(statistics=statistics)
    return quantizer.choose(*observer.range(statistics, target), target), target


def optimizer_of(quantizer, learned):
    """The optimizer of leaves by name, as a session asks for it."""
    if isinstance(quantizer, OptimizesByName):
        return quantizer.named_optimizer(learned)
    return quantizer.optimizer([leaf for leaves in learned.values() for leaf in leaves])


def is_usable(qparams):
    scale, zero_point = qparams.scale, qparams.zero_point
    inside = (zero_point >= qparams.quant_min) & (zero_point <= qparams.quant_max)
    return bool((scale.isfinite() & (scale > 0) & inside).all())


@pytest.mark.parametrize("name", ["lsq", "lsq_plus"])
def test_both_learn_scales_with_an_observer_and_clip_gradients(name):
    quantizer = make(name)

    assert isinstance(quantizer, LearnsScales)
    assert isinstance(quantizer, ObservesRange)
    assert quantizer.clip_gradient is True


def test_lsq_starts_at_twice_the_mean_magnitude_over_the_root_of_quant_max(make_target):
    # int4: quant_max 7. Rows: 2 * 1.5 / sqrt(7) and 2 * 4 / sqrt(7).
    weight = torch.tensor([[1.0, -2.0], [0.0, 8.0]])
    target = make_target("int4", kind="parameter", size=(1, -1), tensor=weight)
    quantizer = make("lsq")
    qparams, target = observe(quantizer, target, weight)

    scale = quantizer.start(qparams, target)["scale"]

    assert scale.shape == (2, 1)
    assert scale.flatten().tolist() == pytest.approx([3 / 7**0.5, 8 / 7**0.5])


def test_lsq_starts_activations_at_the_mean_of_all_batches(make_target):
    # Magnitudes 1, 3 and 8: mean 4.
    quantizer, target = make("lsq"), make_target("uint8", "affine")
    batches = torch.tensor([[1.0, -3.0]]), torch.tensor([[8.0]])
    qparams, target = observe(quantizer, target, *batches)

    scale = quantizer.start(qparams, target)["scale"]

    assert scale.shape == ()
    assert scale.item() == pytest.approx(8 / 255**0.5)


def test_lsq_averages_over_processes(make_target):
    target = make_target()
    observer = make("lsq").observer(target)
    parts = [observer.observe(torch.tensor([values]), (-1, -1)) for values in ([1.0], [2.0, -6.0])]

    joined = observer.join(parts)

    assert joined["magnitude_sum"].item() / joined["magnitude_count"].item() == 3.0
    assert (joined["low"].item(), joined["high"].item()) == (-6.0, 2.0)


def test_lsq_keeps_magnitudes_beside_the_statistics_of_another_observer(make_target):
    quantizer = make("lsq", observer="percentile", observer_options={"percentile": 0.5})
    qparams, target = observe(quantizer, make_target(), torch.tensor([[1.0, 1.0, 1.0, 9.0]]))

    assert qparams.scale.item() < 9 / 127
    assert quantizer.start(qparams, target)["scale"].item() == pytest.approx(6 / 127**0.5)


def test_lsq_starts_where_it_is_told(make_target):
    quantizer = make("lsq", initial_scale=0.01)
    qparams, target = observe(quantizer, make_target(size=(1, -1)), torch.ones(3, 4))

    assert torch.equal(quantizer.start(qparams, target)["scale"], torch.full((3, 1), 0.01))


def test_lsq_starts_zeros_at_the_smallest_scale(make_target):
    weight = torch.zeros(2, 2)
    target = make_target(kind="parameter", tensor=weight)
    quantizer = make("lsq")
    qparams, target = observe(quantizer, target, weight)

    assert quantizer.start(qparams, target)["scale"].item() == 2**-23


def test_lsq_without_observed_values_says_what_to_call(make_target):
    quantizer, target = make("lsq"), make_target()
    qparams = quantizer.choose(torch.tensor(-1.0), torch.tensor(1.0), target)

    with pytest.raises(tersely.CalibrationError) as caught:
        quantizer.start(qparams, target)

    assert str(caught.value) == (
        "fc._output_: its values were not observed; call session.calibrate before session.compress"
    )


def test_lsq_plus_starts_symmetric_weights_three_deviations_from_their_mean(make_target):
    # int4 has 4 bits. Mean 1, deviation 2: (1 + 6) / 8. Mean -1, deviation 0: 1 / 8.
    weight = torch.tensor([[3.0, -1.0], [-1.0, -1.0]])
    target = make_target("int4", kind="parameter", size=(1, -1), tensor=weight)
    quantizer = make("lsq_plus")
    qparams, target = observe(quantizer, target, weight)

    learned = quantizer.start(qparams, target)

    assert list(learned) == ["scale"]
    assert learned["scale"].flatten().tolist() == [0.875, 0.125]


def test_lsq_plus_starts_affine_activations_at_the_observed_range(make_target):
    # 5.1 / 255, and 1 / 0.02 steps below zero.
    quantizer = make("lsq_plus")
    target = make_target("uint8", "affine")
    qparams, target = observe(quantizer, target, torch.tensor([[-1.0, 4.1]]))

    learned = quantizer.start(qparams, target)

    assert learned["scale"].item() == pytest.approx(0.02)
    assert learned["zero_point"].item() == 50.0


def test_a_zero_point_is_rounded_and_stays_in_the_range(make_target):
    quantizer = make("lsq_plus")
    target = make_target("uint4", "affine")
    qparams, _ = observe(quantizer, target, torch.tensor([[-1.0, 1.0]]))

    def meaning(zero_point):
        learned = {"scale": qparams.scale, "zero_point": torch.tensor(zero_point)}
        return quantizer.meaning(qparams, learned).zero_point.item()

    assert [meaning(one) for one in (2.4, 2.6, -3.0, 99.0)] == [2, 3, 0, 15]


def test_gradients_of_lsq_by_hand(make_target):
    # int4, scale 0.5, 4 elements: g = 1 / sqrt(4 * 7). x / scale = 0.6, 2.8, 20, -20.
    # Inside: round(q) - q = 0.4 and 0.2. Above 7, below -7.
    target = make_target("int4", size=(-1,))
    quantizer = make("lsq")
    qparams = quantizer.choose(torch.tensor([-3.5]), torch.tensor([3.5]), target)
    value = torch.tensor([0.3, 1.4, 10.0, -10.0], requires_grad=True)
    scale = torch.tensor(0.5, requires_grad=True)

    result = quantizer.learned_values(value, qparams, {"scale": scale}, target)
    result.backward(torch.tensor([1.0, 2.0, 3.0, 5.0]))

    assert result.tolist() == [0.5, 1.5, 3.5, -3.5]
    assert value.grad.tolist() == [1.0, 2.0, 0.0, 0.0]
    assert scale.grad.item() == pytest.approx((0.4 + 2 * 0.2 + 3 * 7 - 5 * 7) / 28**0.5)


def test_gradients_of_a_zero_point_by_hand(make_target):
    # uint2, scale 0.5, zero point 1.2 that counts as 1: -5 is below 0, 3 is above 3; each adds
    # -0.5 times its gradient.
    target = make_target("uint2", "affine", size=(-1,))
    quantizer = make("lsq_plus")
    qparams = quantizer.choose(torch.tensor([-0.5]), torch.tensor([1.0]), target)
    value = torch.tensor([0.5, -5.0, 3.0], requires_grad=True)
    learned = {
        "scale": torch.tensor(0.5, requires_grad=True),
        "zero_point": torch.tensor(1.2, requires_grad=True),
    }

    result = quantizer.learned_values(value, qparams, learned, target)
    result.backward(torch.tensor([1.0, 2.0, 3.0]))

    assert result.tolist() == [0.5, -0.5, 1.0]
    assert learned["zero_point"].grad.item() == -0.5 * (2 + 3)


def start_of(quantizer, target, values):
    if target.plan.kind == "parameter":
        target = target.evolve(tensor=values)
    qparams, target = observe(quantizer, target, values)
    learned = quantizer.start(qparams, target)
    return qparams, {name: one.clone().requires_grad_() for name, one in learned.items()}


@pytest.mark.parametrize("name", ["lsq", "lsq_plus"])
@pytest.mark.parametrize("scheme", ["symmetric", "affine"])
@pytest.mark.parametrize("dtype", ["int8", "uint4", "int16", "uint1", "float8_e4m3fn"])
@pytest.mark.parametrize("size", [(-1, -1), (1, -1), (2, 4)])
@pytest.mark.parametrize("kind", ["parameter", "output"])
def test_values_are_those_of_fake_quantize(name, scheme, dtype, size, kind, make_target):
    values = torch.randn(4, 8, generator=torch.Generator().manual_seed(0)) + 0.5
    quantizer, target = make(name), make_target(dtype, scheme, kind=kind, size=size)
    qparams, learned = start_of(quantizer, target, values)
    for one in (values, values.bfloat16()):
        found = quantizer.learned_values(one, qparams, learned, target)
        expected = tersely.fake_quantize(one, quantizer.meaning(qparams, learned))
        assert torch.equal(found, expected)
        assert found.dtype == one.dtype


@pytest.mark.parametrize("name", ["lsq", "lsq_plus"])
@pytest.mark.parametrize("wrong", HOSTILE)
def test_whatever_the_optimizer_left_means_something(name, wrong, make_target):
    values = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    quantizer, target = make(name), make_target("uint8", "affine", size=(1, -1))
    qparams, learned = start_of(quantizer, target, values)
    with torch.no_grad():
        for one in learned.values():
            one[1] = wrong

    meaning = quantizer.meaning(qparams, learned)
    found = quantizer.learned_values(values, qparams, learned, target)

    assert is_usable(meaning)
    assert bool(found.isfinite().all())
    assert torch.equal(found, tersely.fake_quantize(values, meaning))
    others = torch.tensor([0, 2, 3])
    assert torch.equal(meaning.scale[others], learned["scale"].detach()[others])


@pytest.mark.parametrize("name", ["lsq", "lsq_plus"])
@pytest.mark.parametrize("learning_rate", [1e-3, 1e6, 1e30])
@pytest.mark.parametrize("gradient", [float("nan"), float("inf"), -1e30, 1e30])
def test_no_gradient_and_no_learning_rate_breaks_a_scale(
    name, learning_rate, gradient, make_target
):
    values = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    quantizer = make(name, learning_rate=learning_rate)
    target = make_target("int8", "affine")
    qparams, learned = start_of(quantizer, target, values)
    optimizer = optimizer_of(quantizer, {key: [leaf] for key, leaf in learned.items()})

    for _ in range(3):
        optimizer.zero_grad()
        found = quantizer.learned_values(values, qparams, learned, target)
        found.backward(torch.full_like(values, gradient))
        optimizer.step()
        assert is_usable(quantizer.meaning(qparams, learned))
    assert bool(quantizer.learned_values(values, qparams, learned, target).isfinite().all())


def test_a_scale_below_the_floor_comes_back(make_target):
    # At the floor everything is clamped: a larger scale lowers the error, so it has to grow,
    # by about a tenth of its size in each of twenty steps.
    target = make_target("int4", size=(-1,))
    quantizer = make("lsq", learning_rate=0.1)
    qparams = quantizer.choose(torch.tensor([-1.0]), torch.tensor([1.0]), target)
    value, scale = torch.tensor([0.5, -1.0, 0.25]), torch.tensor(-0.2, requires_grad=True)
    optimizer = quantizer.optimizer([scale])

    for _ in range(20):
        optimizer.zero_grad()
        found = quantizer.learned_values(value, qparams, {"scale": scale}, target)
        (found - value).square().sum().backward()
        optimizer.step()

    assert scale.item() > 5 * 2**-23


def test_a_sample_without_its_batch_uses_the_scale_of_each_channel(make_target):
    # As a session keeps it: (1, channels, 1, 1), without a block size.
    target = make_target(size=(-1, 1, -1, -1))
    quantizer = make("lsq")
    qparams = quantizer.choose(-torch.ones(1, 2, 1, 1), torch.ones(1, 2, 1, 1), target).evolve(
        block_size=None
    )
    learned = {"scale": torch.tensor([1.0, 0.5]).reshape(1, 2, 1, 1).requires_grad_()}
    value = torch.full((2, 1, 1), 0.7)

    found = quantizer.learned_values(value, qparams, learned, target)
    found.sum().backward()

    assert found.flatten().tolist() == [1.0, 0.5]
    assert learned["scale"].grad.shape == (1, 2, 1, 1)


def test_the_optimizer_is_adam_with_the_learning_rate_asked_for():
    for name in ("lsq", "lsq_plus"):
        learned = {"scale": [torch.ones(())]}
        (group,) = optimizer_of(make(name, learning_rate=0.5), learned).param_groups
        assert group["lr"] == 0.5
        (group,) = optimizer_of(make(name), learned).param_groups
        assert group["lr"] == 1e-3


@pytest.mark.parametrize("name", ["lsq", "lsq_plus"])
def test_zero_points_move_by_steps_and_scales_by_shares(name):
    scale = torch.tensor([1e-4, 10.0], requires_grad=True)
    zero_point = torch.tensor([0.0, 50.0], requires_grad=True)
    quantizer = make(name, learning_rate=0.5)
    named = {"scale": [scale]} | ({"zero_point": [zero_point]} if name == "lsq_plus" else {})
    optimizer = optimizer_of(quantizer, named)
    scale.grad, zero_point.grad = torch.tensor([3.0, -7.0]), torch.tensor([1.0, -1.0])

    optimizer.step()

    # The first step of Adam is the learning rate times the sign.
    assert scale.tolist() == pytest.approx([1e-4 * math.exp(-0.5), 10 * math.exp(0.5)])
    moved = [-0.5, 50.5] if name == "lsq_plus" else [0.0, 50.0]
    assert zero_point.tolist() == pytest.approx(moved)
