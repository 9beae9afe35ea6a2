"""Fake quantization and integers against torch's own operators, plain arithmetic and torchao."""

import warnings

import pytest
import torch
from torch import nn

import tersely
from tersely.arithmetic.affine import quantize
from tersely.arithmetic.fake_quantization import fake_quantize_flat
from tersely.arithmetic.ranges import block_range
from tersely.contracts.settings import QuantizationSetting
from tersely.contracts.target_plan import Origin, TargetPlan

pytestmark = [pytest.mark.benchmark, pytest.mark.usefixtures("_one_thread")]

INT8 = {"quant_min": -127, "quant_max": 127}


def target(size=(1, -1)):
    plan = TargetPlan(
        module="fc",
        target="weight",
        kind="parameter",
        method="quantization",
        algorithm="",
        setting=QuantizationSetting(),
        origin=Origin("quantization.config_list[0]"),
    )
    return tersely.QuantizationTarget(
        plan=plan,
        **INT8,
        dtype="int8",
        scheme="symmetric",
        blocks=tersely.Blocks(size),
        module=nn.Identity(),
    )


def by_hand(value, scale, zero_point):
    levels = torch.clamp(torch.round(value / scale) + zero_point, -127, 127)
    return (levels - zero_point) * scale


def by_hand_without_zero_point(value, scale):
    return torch.clamp(torch.round(value / scale), -127, 127) * scale


@pytest.fixture(scope="module")
def activation():
    value = torch.randn(2048, 1536, generator=torch.Generator().manual_seed(0))
    return value, torch.tensor(0.03), torch.tensor(3, dtype=torch.int32)


@pytest.fixture(scope="module")
def weight():
    value = torch.randn(1536, 384, generator=torch.Generator().manual_seed(0))
    scale = value.abs().amax(1) / 127
    return value, scale, torch.zeros(1536, dtype=torch.int32)


@pytest.mark.parametrize("has_zero_point", [True, False])
def test_an_activation_takes_at_most_half_of_the_built_in_operator(
    least_ratio, activation, has_zero_point
):
    value, scale, zero_point = activation
    ours = zero_point if has_zero_point else None
    found = least_ratio(
        lambda: fake_quantize_flat(value, scale, ours, **INT8),
        lambda: torch.fake_quantize_per_tensor_affine(value, scale, zero_point, -127, 127),
        repeats=30,
    )
    assert found <= 0.5


@pytest.mark.parametrize("has_zero_point", [True, False])
def test_channels_of_a_weight_take_at_most_a_quarter_of_the_built_in_operator(
    least_ratio, weight, has_zero_point
):
    value, scale, zero_point = weight
    column, ours = scale[:, None], zero_point[:, None] if has_zero_point else None
    found = least_ratio(
        lambda: fake_quantize_flat(value, column, ours, **INT8),
        lambda: torch.fake_quantize_per_channel_affine(value, scale, zero_point, 0, -127, 127),
        repeats=80,
        times=5,
    )
    assert found <= 0.25


def test_a_clipped_gradient_costs_less_than_the_mask_that_the_built_in_operator_keeps(
    least_ratio, activation
):
    value, scale, zero_point = activation
    value, gradient = value.clone().requires_grad_(), torch.randn_like(value)

    def ours():
        found = fake_quantize_flat(value, scale, zero_point, **INT8, clip_gradient=True)
        torch.autograd.grad(found, value, gradient)

    def built_in():
        found = torch.fake_quantize_per_tensor_affine(value, scale, zero_point, -127, 127)
        torch.autograd.grad(found, value, gradient)

    assert least_ratio(ours, built_in, repeats=20) <= 0.75


def test_working_in_place_costs_less_than_plain_arithmetic(least_ratio, activation):
    value, scale, zero_point = activation
    found = least_ratio(
        lambda: fake_quantize_flat(value, scale, zero_point, **INT8),
        lambda: by_hand(value, scale, zero_point),
        repeats=30,
    )
    assert found <= 0.8


def test_no_zero_point_costs_less_than_plain_arithmetic(least_ratio, activation):
    value, scale, _ = activation
    found = least_ratio(
        lambda: fake_quantize_flat(value, scale, None, **INT8),
        lambda: by_hand_without_zero_point(value, scale),
        repeats=30,
    )
    assert found <= 0.95


@pytest.mark.parametrize("size", [(1, 128), (1, 32)])
def test_groups_cost_no_more_than_repeating_their_scales(least_ratio, weight, size):
    value, _, _ = weight
    scale = torch.rand(1536, 384 // size[1]) + 0.01
    found = least_ratio(
        lambda: fake_quantize_flat(value, scale, None, **INT8, size=size),
        lambda: by_hand_without_zero_point(value, scale.repeat_interleave(size[1], 1)),
        repeats=30,
        times=5,
    )
    assert found <= 1.1


@pytest.fixture(scope="module")
def weights():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2048, 2048, generator=generator) * 0.02 for _ in range(24)]


def integers_of(weights):
    found = []
    for weight in weights:
        qparams = tersely.choose_qparams(*block_range(weight, (1, -1)), target())
        found.append((quantize(weight, qparams), qparams))
    return found


def test_integers_of_100_million_weights_take_at_most_half_of_torchaos_time(least_ratio, weights):
    with warnings.catch_warnings():
        # It warns of its own on import.
        warnings.simplefilter("ignore")
        # Late: only the environment of the benchmarks has it.
        from torchao.quantization import Int8WeightOnlyConfig, quantize_
    layers = nn.Sequential(*(nn.Linear(2048, 2048, bias=False, device="meta") for _ in weights))
    parameters = [nn.Parameter(weight) for weight in weights]

    def torchao():
        for layer, parameter in zip(layers, parameters, strict=True):
            layer.weight = parameter
        quantize_(layers, Int8WeightOnlyConfig())

    assert least_ratio(lambda: integers_of(weights), torchao, repeats=7) <= 0.5


def test_one_scratch_tensor_takes_less_time_than_a_tensor_for_each_operation(least_ratio, weights):
    made = [
        (weight, tersely.choose_qparams(*block_range(weight, (1, -1)), target()))
        for weight in weights[:6]
    ]

    def plain():
        for weight, how in made:
            levels = torch.round(weight / how.scale) + how.zero_point
            levels.clamp(-127, 127).to(torch.int8)

    def ours():
        for weight, how in made:
            quantize(weight, how)

    assert least_ratio(ours, plain, repeats=9) <= 0.7


def test_ranges_of_square_blocks_cost_less_than_blocks_laid_side_by_side(least_ratio, weight):
    value, _, _ = weight

    def side_by_side():
        blocks = value.view(384, 4, 96, 4).transpose(1, 2).reshape(384, 96, 16)
        return blocks.amin(2), blocks.amax(2)

    assert least_ratio(lambda: block_range(value, (4, 4)), side_by_side, repeats=20) <= 0.6


def test_the_range_of_a_transposed_tensor_costs_less_than_torchs_aminmax(least_ratio):
    value = torch.randn(2048, 2048, generator=torch.Generator().manual_seed(0)).T
    found = least_ratio(
        lambda: block_range(value, (-1, -1)), lambda: torch.aminmax(value), repeats=15
    )
    assert found <= 0.5
