"""Small weights that are alike get their scales together: the same as one at a time."""

import pytest
import torch
from counting import calls_of
from torch import nn

import tersely


def layers(count=6):
    torch.manual_seed(0)
    return nn.Sequential(*(nn.Linear(6, 4) for _ in range(count)), nn.Linear(6, 5))


def chosen(attach, algorithm, model, config_list):
    session = attach(model, algorithm, config_list)
    session.compress()
    return session.qparams()


@pytest.mark.parametrize("dtype", ["int8", "uint4", "float8_e4m3fn"])
@pytest.mark.parametrize("scheme", ["symmetric", "affine"])
@pytest.mark.parametrize("granularity", ["default", "toy_rows", "toy_pairs"])
def test_scales_chosen_together_are_those_chosen_one_at_a_time(attach, dtype, scheme, granularity):
    if dtype.startswith("float8") and scheme == "affine":
        scheme = "symmetric"  # all that there is
    keys = {"quant_dtype": dtype, "quant_scheme": scheme}
    config_list = [
        {
            "op_types": ["Linear"],
            "target_names": ["weight"],
            "granularity": granularity,
            **keys,
        }
    ]
    together, alone = layers(), layers()
    found = chosen(attach, "toy_plain", together, config_list)
    expected = chosen(attach, "toy_range", alone, config_list)
    assert list(found) == list(expected)
    for name, targets in expected.items():
        for target, one in targets.items():
            other = found[name][target]
            assert torch.equal(other.scale, one.scale)
            assert torch.equal(other.zero_point, one.zero_point)
            assert other.block_size == one.block_size
    value = torch.randn(3, 6)
    for layer, other in zip(together, alone, strict=True):
        assert torch.equal(layer(value), other(value))


def test_scales_chosen_together_are_largest_values_over_127(attach):
    model = nn.Sequential(*(nn.Linear(2, 2, bias=False) for _ in range(4)))
    with torch.no_grad():
        for number, layer in enumerate(model, start=1):
            layer.weight.copy_(torch.tensor([[1.27, 0.0], [-0.5, 0.1]]) * number)
    found = chosen(
        attach, "toy_plain", model, [{"op_types": ["Linear"], "target_names": ["weight"]}]
    )
    scales = torch.stack([found[str(number)]["weight"].scale for number in range(4)])
    assert torch.allclose(scales, torch.tensor([0.01, 0.02, 0.03, 0.04]))


def test_of_weights_chosen_together_the_one_that_is_not_finite_is_named(attach):
    model = layers()
    with torch.no_grad():
        model[4].weight[2, 3] = float("nan")
    session = attach(model, "toy_plain")
    with pytest.raises(tersely.CalibrationError, match=r"^4\.weight: 1 of its 24 values are not"):
        session.compress()
    assert session.qparams() == {}


def test_a_small_weight_more_costs_few_calls(attach):
    """82; 110 while each weight had an object for what was chosen, 158 with a call per buffer."""
    counts = {}
    for size in (50, 50, 150):  # the first also fills what is kept for good
        model = nn.Sequential(*(nn.Linear(2, 2, bias=False) for _ in range(size)))
        session = attach(model, "toy_plain", [{"op_types": ["Linear"], "target_names": ["weight"]}])
        counts[size] = calls_of(session.compress)

    assert (counts[150] - counts[50]) / 100 < 100


def test_ranges_that_follow_training_begin_with_those_of_the_weights(attach):
    model = layers()
    config_list = [{"op_types": ["Linear"], "target_names": ["weight"]}]
    session = attach(model, "toy_plain_follow", config_list)
    for factor in (1, 3):  # the second time every buffer is there already
        with torch.no_grad():
            for layer in model:
                layer.weight.mul_(factor)
        session.compress()
        for layer in model:
            weight = layer._parameters["weight"]
            assert torch.equal(layer._buffers["_tersely_weight_low"], weight.amin())
            assert torch.equal(layer._buffers["_tersely_weight_high"], weight.amax())
            assert layer._buffers["_tersely_weight_in_force"] == 1
