"""Numbers by hand, and the levels of the paper in blocks of 64."""

import pytest
import torch
from tersely_hqq.algorithms import NF4

import tersely


def quantized(weight, algorithm, *, dtype="uint4", granularity="default", **options):
    layer = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    with torch.no_grad():
        layer.weight.copy_(weight)
    entry = {
        "op_types": ["Linear"],
        "target_names": ["weight"],
        "quant_dtype": dtype,
        "granularity": granularity,
    }
    return tersely.quantize(layer, [entry], algorithm=algorithm, options=options)


def test_one_iteration_moves_the_zero_point_by_the_mean_of_what_the_sparse_error_leaves():
    weight = torch.tensor([[0.0, 1.0, 2.0, 4.0]])

    session = quantized(weight, "hqq", dtype="uint2", iterations=1)

    # The scale is 4/3, the integers are 0, 1, 2 and 3, the errors 0, -1/3, -2/3 and 0. Shrunk by
    # |e|^-0.3 / 10 they are -0.19429 and -0.55373, so the mean of q - (w - e) / s is
    # (1 - 1.19429 * 0.75 + 2 - 2.55373 * 0.75) / 4.
    found = session.integer_weights()[""]["weight"]
    assert found.values.tolist() == [[0, 1, 2, 3]]
    assert float(found.qparams.zero_point) == pytest.approx(0.047246, abs=2e-6)
    assert session.model.weight[0, 3].item() == pytest.approx((3 - 0.047246) * 4 / 3, abs=1e-5)


def test_a_weight_that_lies_on_a_grid_stays_as_it_is():
    weight = torch.tensor([[-1.0, -0.5, 0.0, 0.5]])

    session = quantized(weight, "hqq", dtype="uint2")

    assert session.model.weight.tolist() == weight.tolist()


def test_the_error_of_heavy_tails_is_smaller_than_with_the_first_zero_points():
    weight = torch.distributions.Laplace(0.0, 1.0).icdf(torch.linspace(0.001, 0.999, 4096))
    weight = weight[torch.randperm(4096, generator=torch.Generator().manual_seed(0))]
    weight = weight.reshape(32, 128)
    run = {"run": {"length": 64}}

    errors = [
        (
            quantized(weight, "hqq", dtype="uint2", granularity=run, iterations=count).model.weight
            - weight
        )
        .abs()
        .pow(0.7)
        .mean()
        .item()
        for count in (0, 20)
    ]

    assert errors[1] < errors[0]


def test_a_block_of_64_becomes_indices_into_the_levels_of_the_paper():
    weight = torch.zeros(1, 128)
    weight[0, :4] = torch.tensor([2.0, 0.1, -1.6, 0.5])
    weight[0, 64:68] = torch.tensor([-0.5, 0.25, 0.02, -0.02])

    found = quantized(weight, "nf4", granularity={"run": {"length": 64}})
    integers = found.integer_weights()[""]["weight"]

    # Over 2: 1, 0.05, -0.8, 0.25, with 0.0398 between 0 and 0.0796, -0.848 between the lowest two.
    assert integers.values[0, :5].tolist() == [15, 8, 1, 10, 7]
    # Over 0.5: -1, 0.5, 0.04, -0.04.
    assert integers.values[0, 64:69].tolist() == [0, 12, 8, 7, 7]
    expected = [2 * NF4[15], 2 * NF4[8], 2 * NF4[1], 2 * NF4[10]]
    assert found.model.weight[0, :4].tolist() == pytest.approx(expected)


def test_a_granularity_needs_its_length():
    with pytest.raises(tersely.ConfigError, match="length"):
        quantized(torch.ones(1, 4), "nf4", granularity={"run": {}})
