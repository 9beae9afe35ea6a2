"""AWQ: factors on a grid by hand, clipped ranges, and closer outputs."""

import pytest
import torch
from torch import nn

import tersely


def awq(**options):
    return tersely.registry().quantizers["awq"](**options)


def layer_with_outliers(seed=0):
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.exp(1.5 * torch.randn(32, generator=generator))
    return (
        torch.randn(16, 32, generator=generator),
        torch.randn(256, 32, generator=generator) * lengths,
    )


def nearest(target):
    low, high = tersely.block_range(target.tensor, target.blocks.size)
    return tersely.fake_quantize(target.tensor, tersely.choose_qparams(low, high, target))


def test_the_factor_that_saves_the_large_input_is_found(linear_target, see):
    # Steps of 1 round 0.4 to 0, times an input of 16. mean|x| = (1, 16); alpha 1/2 gives (1, 4),
    # over their middle (1/2, 2): the weight is (3.5, 0.8), its steps 1/2, and 0.8 rounds to 1,
    # which is 0.5. Alpha 1 gives (1/4, 4): (1.75, 1.6), steps 1/4, and 1.6 rounds to 1.5, which is
    # 0.375, the closest to 0.4.
    target = linear_target([[7.0, 0.4]])
    quantizer = awq(grid=3, clip=False)
    target = see(quantizer, target, torch.tensor([[1.0, 16.0]]))

    solution = quantizer.solve(target)

    torch.testing.assert_close(solution.input_scale, torch.tensor([0.25, 4.0]))
    torch.testing.assert_close(solution.tensor, torch.tensor([[1.75, 1.5]]))
    torch.testing.assert_close(solution.qparams.scale, torch.tensor([[0.25]]))


def test_one_alpha_is_none(linear_target, see):
    target = linear_target([[7.0, 0.4]])
    quantizer = awq(grid=1, clip=False)

    solution = quantizer.solve(see(quantizer, target, torch.tensor([[1.0, 16.0]])))

    assert solution.input_scale.tolist() == [1.0, 1.0]
    assert solution.tensor.tolist() == [[7.0, 0.0]]


def test_errors_of_all_that_share_an_input_are_summed(linear_target, see):
    # For one alone nothing is gained by a factor: it is exact as it is. With the other it moves.
    quantizer, inputs = awq(grid=3, clip=False), torch.tensor([[1.0, 16.0]])
    exact = see(quantizer, linear_target([[7.0, 1.0]]), inputs)
    other = see(quantizer, linear_target([[70.0, 4.0]]), inputs)

    assert quantizer.input_scales([exact]).tolist() == [1.0, 1.0]
    shared = quantizer.input_scales([exact, other])
    assert shared[1] > shared[0]


def test_a_range_is_clipped_where_the_output_gains(linear_target, see):
    # Steps of 1 round 0.5 to 0, times an input of 100; half the range has steps of 1/2, which hit
    # it, and 7, whose input is a hundredth, becomes 3.5.
    target = linear_target([[7.0, 0.5]])
    inputs = torch.tensor([[0.01, 0.0], [0.0, 100.0]])
    clipped, whole = awq(grid=1), awq(grid=1, clip=False)

    assert whole.solve(see(whole, target, inputs)).tensor.tolist() == [[7.0, 0.0]]
    solution = clipped.solve(see(clipped, target, inputs))
    assert solution.tensor.tolist() == [[3.5, 0.5]]
    assert solution.qparams.scale.tolist() == [[0.5]]


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("size", [(1, 8), (1, -1), (-1, -1), (2, 16)])
def test_outputs_are_closer_than_rounding_to_nearest_leaves_them(
    clip, size, linear_target, see, output_error
):
    weight, inputs = layer_with_outliers()
    target, quantizer = linear_target(weight, size=size, scheme="affine"), awq(clip=clip)

    solution = quantizer.solve(see(quantizer, target, inputs))

    found = output_error(target, solution.tensor / solution.input_scale, inputs)
    assert found < 0.8 * output_error(target, nearest(target), inputs)
    again = tersely.fake_quantize(solution.tensor, solution.qparams)
    torch.testing.assert_close(again, solution.tensor)


def test_channels_that_are_always_zero_keep_one(linear_target, see):
    weight, inputs = layer_with_outliers()
    inputs[:, 5] = 0
    target, quantizer = linear_target(weight), awq()

    scales = quantizer.input_scales([see(quantizer, target, inputs)])

    assert scales[5] == 1
    assert not torch.equal(scales, torch.ones(32))


def test_a_convolution_shares_one_factor_over_its_kernel(make_target, see, output_error):
    generator = torch.Generator().manual_seed(0)
    module = nn.Conv2d(8, 6, 3, groups=2, bias=False)
    with torch.no_grad():
        module.weight.copy_(torch.randn(module.weight.shape, generator=generator))
    lengths = torch.exp(1.5 * torch.randn(8, 1, 1, generator=generator))
    inputs = torch.randn(2, 8, 9, 9, generator=generator) * lengths
    target, quantizer = make_target(module, size=(1, -1, -1, -1)), awq()

    solution = quantizer.solve(see(quantizer, target, inputs))

    assert solution.input_scale.shape == (8,)
    factors = solution.input_scale.reshape(2, 1, 4, 1, 1).expand(2, 3, 4, 1, 1).reshape(6, 4, 1, 1)
    found = output_error(target, solution.tensor / factors, inputs)
    assert found < 0.8 * output_error(target, nearest(target), inputs)


def test_solving_before_calibration_is_refused(linear_target):
    with pytest.raises(tersely.SessionError, match=r"call session.calibrate\(batches\)"):
        awq().solve(linear_target(torch.ones(2, 3)))
