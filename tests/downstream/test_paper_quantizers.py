"""Quantizers of papers: numbers by hand, and numbers that the papers print."""

import pytest
import torch
from torch import nn

import tersely

pytestmark = pytest.mark.usefixtures("papers")


def layer(values):
    weight = torch.tensor(values)
    found = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    with torch.no_grad():
        found.weight.copy_(weight)
    return found


def quantized(values, algorithm, *, dtype="int8", data=None, target="weight", **keys):
    entry = {
        "op_types": ["Linear"],
        "target_names": [target],
        "quant_dtype": dtype,
        **keys,
    }
    return tersely.quantize(layer(values), [entry], algorithm=algorithm, data=data)


def test_levels_of_five_bits_are_sums_of_two_powers_of_two():
    weight = [[1.0, -0.04, 0.66]]

    session = quantized(weight, "additive_powers", dtype="uint5")

    # {0, 1, 1/4, 1/16} and {0, 1/2, 1/8, 1/32}, in some order of shifts, over their largest sum.
    levels = session.qparams()[""]["weight"].levels
    positive = levels[levels > 0]
    assert len(levels) == 31
    assert positive[-1] == 1
    assert positive[0].item() == pytest.approx(positive[1].item() / 2)
    assert session.model.weight[0, 0] == 1


def test_a_block_of_e2m1_shares_a_power_of_two():
    weight = [[12.0, 5.0, -0.9, 0.2], [0.3, -0.2, 0.1, 0.01]]
    granularity = {"micro_block": {"length": 4}}

    session = quantized(weight, "microscaling", dtype="uint4", granularity=granularity)

    # 12 is 6 times 2; 0.3 is 4.8 times 1/16, and 6/16 is the smallest that holds it.
    assert session.qparams()[""]["weight"].scale.flatten().tolist() == [2.0, 1 / 16]
    assert session.model.weight.tolist() == [
        [12.0, 4.0, -1.0, 0.0],  # 5 lies midway between 2 * 2 and 2 * 3, and goes to the lower one
        [0.25, -0.1875, 0.09375, 0.0],
    ]


def test_levels_are_means_that_inputs_weigh():
    weight = [[0.0, 1.0, 10.0, 12.0]]
    data = [torch.diag(torch.tensor([1.0, 1.0, 1.0, 3.0]) ** 0.5)]

    session = quantized(weight, "k_means", dtype="uint1", data=data)

    # Two clusters: (0 + 1) / 2 and (10 + 3 * 12) / 4.
    found = session.model.weight.flatten().tolist()
    assert found == pytest.approx([0.5, 0.5, 11.5, 11.5], rel=1e-5)


def test_a_gradient_grows_where_it_leads_away_from_the_level():
    session = quantized([[1.27, 0.124]], "element_wise")
    weight = dict(session.model.named_parameters())["weight"]

    (session.model.weight * torch.tensor([1.0, -2.0])).sum().backward()

    # The scale is 0.01; 0.124 lies 0.4 steps above its level 0.12, and delta is 0.2.
    expected = [1.0, -2.0 * (1 - 0.2 * 0.4)]
    assert weight.grad.flatten().tolist() == pytest.approx(expected, rel=1e-4)


def test_a_learned_share_of_the_range_starts_at_the_sigmoid_of_four():
    session = quantized([[1.27, -0.5]], "learned_clipping")
    session.model(torch.ones(1, 2))

    assert session.qparams()[""]["weight"].scale.item() == pytest.approx(0.01 * 0.9820138)


def test_four_bits_clip_a_laplace_distribution_at_five_deviations():
    uniform = torch.linspace(0.00001, 0.99999, 100_000)
    data = torch.distributions.Laplace(0.0, 1.0).icdf(uniform).view(-1, 2)

    session = quantized(
        [[1.0, 1.0]], "analytic_clipping", dtype="int4", data=[data], target="_input_"
    )

    # The paper prints 5.03 for four bits; int4 has 7 steps on either side.
    assert session.qparams()[""]["_input_"].scale.item() * 7 == pytest.approx(5.03, rel=2e-3)


def test_ternary_weights_are_the_mean_of_those_above_the_threshold():
    session = quantized([[0.1, -1.0, 2.0, 0.9]], "ternary_weights", dtype="uint2")

    # The mean magnitude is 1, the threshold 0.7, and the mean of 1, 2 and 0.9 is 1.3.
    expected = [0.0, -1.3, 1.3, 1.3]
    assert session.model.weight.flatten().tolist() == pytest.approx(expected)
