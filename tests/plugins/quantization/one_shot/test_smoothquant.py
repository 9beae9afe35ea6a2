"""SmoothQuant: factors by hand, shared, and what they leave unchanged."""

import pytest
import torch
from torch import nn

import tersely


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
