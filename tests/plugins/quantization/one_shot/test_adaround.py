"""AdaRound: a pair of roundings by hand, and never worse than nearest."""

import pytest
import torch
from torch import nn

import tersely


def adaround(**options):
    return tersely.registry().quantizers["adaround"](**({"iterations": 200} | options))


def layer(seed, outputs=12, inputs=24):
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(inputs, inputs, generator=generator)
    return (
        torch.randn(outputs, inputs, generator=generator),
        torch.randn(128, inputs, generator=generator) @ mixing,
    )


def rounded_to_nearest(quantizer, target, see, inputs):
    return type(quantizer)(iterations=0).solve(see(quantizer, target, inputs))


def test_two_equal_inputs_round_one_up_and_one_down(linear_target, see):
    # 2.4 + 3.45 = 5.85, and nearest gives 2 + 3 = 5: one has to go up, and 3.45 has less far to go.
    target = linear_target([[2.4, 3.45, 7.0]])
    inputs = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0], [0.1, 0.0, 0.0], [0.0, 0.1, 0.0]])
    quantizer = adaround()

    solution = quantizer.solve(see(quantizer, target, inputs))

    assert solution.qparams.scale.tolist() == [[1.0]]
    assert solution.tensor.tolist() == [[2.0, 4.0, 7.0]]


def test_every_weight_goes_to_one_of_its_neighbours(linear_target, see):
    weight, inputs = layer(0)
    target, quantizer = linear_target(weight), adaround()

    solution = quantizer.solve(see(quantizer, target, inputs))

    steps = (solution.tensor - weight).abs() / solution.qparams.scale
    inside = weight.abs() <= 7 * solution.qparams.scale
    assert bool((steps[inside] <= 1 + 1e-4).all())
    again = tersely.fake_quantize(solution.tensor, solution.qparams)
    torch.testing.assert_close(again, solution.tensor)


@pytest.mark.parametrize("scheme", ["symmetric", "affine"])
@pytest.mark.parametrize("size", [(1, -1), (1, 8), (-1, -1)])
def test_outputs_are_closer_than_nearest_rounding_leaves_them(
    scheme, size, linear_target, see, output_error
):
    weight, inputs = layer(1)
    target, quantizer = linear_target(weight, scheme=scheme, size=size), adaround()
    nearest = rounded_to_nearest(quantizer, target, see, inputs)

    solution = quantizer.solve(see(quantizer, target, inputs))

    assert torch.equal(solution.qparams.scale, nearest.qparams.scale)
    found = output_error(target, solution.tensor, inputs)
    assert found < 0.7 * output_error(target, nearest.tensor, inputs)


@pytest.mark.parametrize("options", [{"learning_rate": 50.0}, {"iterations": 1}, {"warm_up": 1.0}])
def test_no_row_is_ever_worse_than_with_nearest_rounding(options, linear_target, see):
    weight, inputs = layer(2)
    target, quantizer = linear_target(weight), adaround(**options)
    nearest = rounded_to_nearest(quantizer, target, see, inputs)

    solution = quantizer.solve(see(quantizer, target, inputs))

    error = ((solution.tensor - weight) @ inputs.T).square().sum(1)
    limit = ((nearest.tensor - weight) @ inputs.T).square().sum(1)
    assert bool((error <= limit * (1 + 1e-5)).all())


def test_masked_weights_stay_masked(linear_target, see):
    weight, inputs = layer(3)
    weight[:, ::3] = 0
    target, quantizer = linear_target(weight), adaround()

    solution = quantizer.solve(see(quantizer, target, inputs))

    assert bool((solution.tensor[:, ::3] == 0).all())


def test_the_same_inputs_give_the_same_weights(linear_target, see):
    weight, inputs = layer(4)
    target = linear_target(weight)

    one, other = (
        quantizer.solve(see(quantizer, target, inputs)).tensor
        for quantizer in (adaround(), adaround())
    )

    assert torch.equal(one, other)


def test_a_grouped_convolution_is_solved(make_target, see, output_error):
    generator = torch.Generator().manual_seed(0)
    module = nn.Conv2d(8, 6, 3, groups=2, bias=False)
    inputs = torch.randn(2, 8, 9, 9, generator=generator).cumsum(-1) + 1
    target, quantizer = make_target(module, size=(1, -1, -1, -1)), adaround()
    nearest = rounded_to_nearest(quantizer, target, see, inputs)

    solution = quantizer.solve(see(quantizer, target, inputs))

    found = output_error(target, solution.tensor, inputs)
    assert found < 0.7 * output_error(target, nearest.tensor, inputs)


def test_an_input_that_is_always_zero_does_no_harm(linear_target, see):
    target, quantizer = linear_target([[7.0, 2.4]]), adaround()

    solution = quantizer.solve(see(quantizer, target, torch.zeros(3, 2)))

    assert solution.tensor.tolist() == [[7.0, 2.0]]


def test_a_float8_target_is_refused(linear_target, see):
    target, quantizer = linear_target(torch.ones(2, 3), dtype="float8_e5m2"), adaround()

    with pytest.raises(ValueError, match="rounds to integers and float8_e5m2 is none"):
        quantizer.solve(see(quantizer, target, torch.eye(3)))
