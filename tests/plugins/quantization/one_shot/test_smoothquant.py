"""SmoothQuant: factors by hand, shared, and what they leave unchanged."""

import pytest
import torch
from torch import nn

import tersely
from tersely_quantization.solving.joint_error import joint_error
from tersely_quantization.solving.weighed import weigh


def smoothquant(**options):
    return tersely.registry().quantizers["smoothquant"](**options)


def test_factors_split_the_range_between_inputs_and_weights(linear_target, see):
    # max|x| = (16, 1), max|w| = (1, 4): sqrt(16 / 1) = 4 and sqrt(1 / 4) = 1/2; over their middle,
    # sqrt(4 * 1/2) = sqrt 2.
    target = linear_target([[1.0, -4.0], [-0.5, 2.0]])
    quantizer = smoothquant()
    target = see(quantizer, target, torch.tensor([[[-16.0, 1.0], [3.0, -0.5]]]))

    scales = quantizer.input_scales([target])

    torch.testing.assert_close(scales, torch.tensor([4.0, 0.5]) / 2**0.5)


@pytest.mark.parametrize(("alpha", "expected"), [(0.0, [1.0, 1 / 4]), (1.0, [16.0, 1.0])])
def test_alpha_says_how_much_moves(alpha, expected, linear_target, see):
    target = linear_target([[1.0, -4.0]])
    quantizer = smoothquant(alpha=alpha)
    target = see(quantizer, target, torch.tensor([[-16.0, 1.0]]))

    scales = quantizer.input_scales([target])

    expected = torch.tensor(expected)
    torch.testing.assert_close(scales, expected / expected.prod().sqrt())


def test_the_largest_weight_of_all_that_share_an_input_counts(linear_target, see):
    quantizer, inputs = smoothquant(alpha=0.0), torch.ones(1, 2)
    one, other = (
        see(quantizer, linear_target(weight), inputs)
        for weight in ([[8.0, 0.5]], [[1.0, -2.0], [0.0, 1.0]])
    )

    scales = quantizer.input_scales([one, other])

    # 1 / (8, 2), over 1 / 4
    torch.testing.assert_close(scales, torch.tensor([0.5, 2.0]))


def test_ranges_of_batches_are_merged(linear_target, see):
    quantizer = smoothquant()
    target = see(
        quantizer,
        linear_target(torch.ones(1, 2)),
        torch.tensor([[-1.0, 5.0]]),
        torch.tensor([[2.0, 4.0]]),
    )

    assert target.observed["low"].tolist() == [-1.0, 4.0]
    assert target.observed["high"].tolist() == [2.0, 5.0]


def test_channels_that_are_always_zero_keep_one(linear_target, see):
    quantizer = smoothquant()
    target = see(quantizer, linear_target([[1.0, 2.0, 0.0]]), torch.tensor([[4.0, 0.0, 3.0]]))

    assert quantizer.input_scales([target]).tolist() == [1.0, 1.0, 1.0]


def test_the_weight_times_its_factors_is_rounded(linear_target, see):
    # Factors 2 and 1/2: the scaled weight is (2, -7), its steps are 7 / 7.
    target = linear_target([[1.2, -14.0]])
    scaled = smoothquant().solve_scaled(target, torch.tensor([2.0, 0.5]))

    assert scaled.qparams.scale.tolist() == [[1.0]]
    assert scaled.tensor.tolist() == [[2.0, -7.0]]
    assert scaled.input_scale.tolist() == [2.0, 0.5]


def test_outliers_in_an_input_cost_less_when_both_are_quantized(linear_target, see):
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(256, 32, generator=generator)
    inputs[:, 3] *= 100
    weight = torch.randn(16, 32, generator=generator)
    target, quantizer = linear_target(weight, dtype="int8"), smoothquant()
    whole = target.evolve(blocks=tersely.Blocks((-1, -1)))

    def quantized(values):
        low, high = tersely.block_range(values, (-1, -1))
        return tersely.fake_quantize(values, tersely.choose_qparams(low, high, whole))

    solution = quantizer.solve(see(quantizer, target, inputs))

    exact = inputs @ weight.T
    plain = (quantized(inputs) @ quantized(weight).T - exact).norm()
    smooth = (quantized(inputs / solution.input_scale) @ solution.tensor.T - exact).norm()
    assert smooth < 0.5 * plain


@pytest.mark.parametrize(
    "module",
    [
        nn.Conv2d(4, 6, 3, padding=1, groups=2, bias=False),
        nn.ConvTranspose2d(4, 6, 2, groups=2, bias=False),
    ],
)
def test_a_convolution_computes_the_same_with_its_factors(module, make_target, see):
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(2, 4, 8, 8, generator=generator)
    target = make_target(module, size=(-1, -1, -1, -1), dtype="int16")
    quantizer = smoothquant()

    solution = quantizer.solve(see(quantizer, target, inputs))

    assert solution.input_scale.shape == (4,)
    with torch.no_grad():
        exact = module(inputs)
        found = torch.func.functional_call(
            module, {"weight": solution.tensor}, (inputs / solution.input_scale[:, None, None],)
        )
    torch.testing.assert_close(found, exact, rtol=1e-3, atol=1e-3)


def test_solving_before_calibration_is_refused(linear_target):
    with pytest.raises(tersely.SessionError, match=r"call session.calibrate\(batches\)"):
        smoothquant().solve(linear_target(torch.ones(2, 3)))


def observed(linear_target, weight, *, high, squares, count):
    gram = torch.diag(torch.tensor(squares))[None]
    seen = {"low": torch.zeros(len(high)), "high": torch.tensor(high), "gram": gram}
    target = linear_target(weight, dtype="int16")
    return target.evolve(observed={**seen, "count": torch.tensor([count])})


@pytest.mark.parametrize(
    ("factors", "expected"),
    [
        # A step of 4/255, squared and over 12, in each of 3 vectors, times 1 and 2 squared.
        ([1.0, 1.0], 3 / 12 * (4 / 255) ** 2 * (1 + 4)),
        # A step of 2/255 for both; a column's own is the step times its factor.
        ([2.0, 0.5], 3 / 12 * (2 / 255) ** 2 * (4 * 1 + 0.25 * 4)),
    ],
)
def test_the_error_of_rounded_inputs_is_a_twelfth_of_the_step_squared(
    linear_target, factors, expected
):
    # 16 bits leave next to no error of the weights.
    weight = [[1.0, 2.0]]
    target = observed(linear_target, weight, high=[4.0, 1.0], squares=[20.0, 2.0], count=3.0)

    error = joint_error([(target, weigh(target))], torch.tensor(factors))

    assert error == pytest.approx(expected, rel=1e-3)


def test_a_column_that_rounds_to_zero_costs_no_more_than_its_values(linear_target):
    weight = [[1.0, 3.0]]
    target = observed(linear_target, weight, high=[255.0, 0.1], squares=[1e5, 0.02], count=12.0)

    error = joint_error([(target, weigh(target))], torch.ones(2))

    # Steps are 1: 12 vectors at 1/12, and 0.02 times 3 squared instead of 9.
    assert error == pytest.approx(1 + 0.02 * 9, rel=1e-3)


def test_the_error_of_weights_is_what_it_does_to_the_observed_inputs(linear_target):
    # int4 has steps of 1 here: 0.25 becomes 0, and costs 0.25 squared for each squared input.
    seen = {"low": torch.zeros(2), "high": torch.zeros(2), "count": torch.tensor([1.0])}
    gram = torch.tensor([[[9.0, 0.0], [0.0, 16.0]]])
    target = linear_target([[7.0, 0.25]]).evolve(observed={**seen, "gram": gram})

    assert joint_error([(target, weigh(target))], torch.ones(2)) == pytest.approx(16 / 16)


def test_auto_finds_an_alpha_that_none_beats_on_the_calibrated_inputs(linear_target, see):
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(512, 32, generator=generator)
    inputs[:, 3] *= 60
    inputs[:, 7] *= 8
    weight = torch.randn(16, 32, generator=generator)
    target = linear_target(weight, dtype="int8")
    whole = target.evolve(blocks=tersely.Blocks((-1, -1)), scheme="affine", dtype="uint8")
    whole = whole.evolve(quant_min=0, quant_max=255)

    def error(alpha):
        quantizer = smoothquant(alpha=alpha)
        solution = quantizer.solve(see(quantizer, target, *inputs.split(100)))
        smooth = inputs / solution.input_scale
        qparams = tersely.choose_qparams(*tersely.block_range(smooth, (-1, -1)), whole)
        outputs = tersely.fake_quantize(smooth, qparams) @ solution.tensor.T
        return float((outputs - inputs @ weight.T).square().sum())

    tried = {alpha: error(alpha) for alpha in (0.0, 0.25, 0.5, 0.75, 0.9)}

    assert error("auto") <= 1.02 * min(tried.values())
    assert tried[0.25] > 2 * min(tried.values())


def test_auto_adds_up_what_batches_show(linear_target, see):
    batches = torch.tensor([[[1.0, 2.0]], [[3.0, 0.0]]])

    target = see(smoothquant(alpha="auto"), linear_target(torch.ones(1, 2)), *batches)

    assert target.observed["count"].tolist() == [2.0]
    assert target.observed["gram"].diagonal(dim1=1, dim2=2).tolist() == [[10.0, 4.0]]
    assert target.observed["high"].tolist() == [3.0, 2.0]


def test_an_embedding_has_no_inputs_to_share_with(make_target, see):
    target = make_target(nn.Embedding(8, 4), size=(1, -1), dtype="int8")
    quantizer = smoothquant()

    target = see(quantizer, target, torch.tensor([[1, 2, 3]]))

    assert {key: one.tolist() for key, one in target.observed.items()} == {"count": [3.0]}
    assert quantizer.solve(target) is None
