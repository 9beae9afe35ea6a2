"""Scales in force: what forward computes with, what is stored, what is shown."""

import pytest
import torch
from torch import nn


def test_forward_computes_with_whole_steps_of_the_scale(two, attach):
    session = attach(two, "toy_range")
    session.compress()

    # Scale 1.27 / 127: 0.014 is 1.4 steps, rounded to 1.
    torch.testing.assert_close(two[0].weight, torch.tensor([[1.27, 0.0], [0.01, -0.5]]))
    assert session.qparams()["0"]["weight"].scale.item() == pytest.approx(0.01)
    assert torch.equal(two[0].bias, torch.tensor([0.25, -0.5]))


def test_integers_read_back_are_what_forward_computes_with(two, attach):
    session = attach(two, "toy_range")
    session.compress()
    found = session.integer_weights()["0"]["weight"]

    assert found.values.tolist() == [[127, 0], [1, -50]]
    assert found.values.dtype is torch.int8
    assert torch.equal(found.dequantize(), two[0].weight)


def test_integers_of_a_simulating_algorithm_are_its_own(two, attach):
    session = attach(two, "toy_signs")
    session.compress()
    found = session.integer_weights()["0"]["weight"]

    assert found.values.tolist() == [[1, 0], [1, -1]]
    assert torch.equal(found.dequantize(), two[0].weight)


def test_an_input_has_the_range_of_all_batches(two, attach, everything):
    session = attach(two, "toy_range", everything)
    session.calibrate([torch.tensor([[0.5, 0.0]]), torch.tensor([[-2.54, 1.0]])])
    session.compress()

    assert session.qparams()["0"]["_input_"].scale.item() == pytest.approx(0.02)


def test_channels_are_quantized_alike_with_and_without_a_batch(attach):
    """Whatever the algorithm, one value per channel goes with both."""
    batch = torch.tensor([1.0, 10.0]).view(1, 2, 1, 1).expand(1, 2, 3, 3) * 1.004
    config = [{"op_names": ["0"], "target_names": ["_input_"]}]
    for algorithm in ("toy_range", "toy_follow", "toy_learn", "toy_signs"):
        model = nn.Sequential(nn.Conv2d(2, 1, 3))
        session = attach(model, f"{algorithm}_channels", config)
        session.calibrate([batch])
        session.compress()
        model.eval()

        found = model(batch[0])

        assert found.shape == (1, 1, 1)
        assert torch.equal(found, model(batch)[0])


def test_channels_are_quantized_alike_with_and_without_a_length(attach):
    """BatchNorm1d takes (batch, channels) as well as (batch, channels, length)."""
    short = torch.tensor([[1.0, 10.0], [-0.5, 3.0]])
    config = [{"op_names": ["0"], "target_names": ["_input_"]}]
    for algorithm in ("toy_range", "toy_learn", "toy_signs"):
        for first, second in ((short, short.unsqueeze(2)), (short.unsqueeze(2), short)):
            model = nn.Sequential(nn.BatchNorm1d(2))
            session = attach(model, f"{algorithm}_channels", config)
            session.calibrate([first])
            session.compress()
            model.eval()

            assert torch.equal(model(second).flatten(), model(first).flatten())


@pytest.mark.parametrize("algorithm", ["toy_range", "toy_follow", "toy_learn", "toy_signs"])
def test_blocks_of_an_input_keep_their_size(algorithm, attach):
    config = [{"op_names": ["0"], "target_names": ["_input_"], "granularity": "toy_pairs"}]
    model = nn.Sequential(nn.Linear(4, 1))
    session = attach(model, algorithm, config)
    if algorithm == "toy_follow":
        model(torch.tensor([[1.27, 0.0, 0.0, -12.7]]))
    else:
        session.calibrate([torch.tensor([[1.27, 0.0, 0.0, -12.7]])])
        session.compress()
    found = session.qparams()["0"]["_input_"]
    model.eval()
    model(torch.ones(3, 4))

    assert found.block_size == (-1, 2)
    torch.testing.assert_close(found.scale, torch.tensor([[0.01, 0.1]]))


def test_one_scale_for_tied_weights_which_stay_tied(attach):
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[1].weight = model[0].weight
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.27, 0.014], [0.0, 0.0]]))
    session = attach(model, "toy_range")
    session.compress()

    assert list(session.qparams()) == ["0"]
    assert torch.equal(model[0].weight, model[1].weight)
    assert model[1].weight[0, 1].item() == pytest.approx(0.01)
    session.finalize()
    assert model[0].weight is model[1].weight
    assert model[1].weight[0, 1].item() == pytest.approx(0.01)


def test_what_is_learned_of_tied_weights_is_one_tensor(attach):
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[1].weight = model[0].weight
    session = attach(model, "toy_learn")
    session.compress()

    assert len(list(session.parameters())) == 1


def test_a_shared_module_has_one_scale(attach):
    shared = nn.Linear(2, 2)
    model = nn.Sequential(shared, nn.ReLU(), shared)
    session = attach(model, "toy_range")
    session.compress()

    assert list(session.qparams()) == ["0"]
    session.finalize()
    assert model[0] is model[2]


def test_a_bias_that_is_none_is_skipped(attach):
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2))
    session = attach(
        model, "toy_range", [{"op_types": ["Linear"], "target_names": ["weight", "bias"]}]
    )
    session.compress()

    assert {name: list(targets) for name, targets in session.qparams().items()} == {
        "0": ["weight"],
        "1": ["weight", "bias"],
    }


def test_a_later_entry_says_how_a_target_is_quantized(two, attach):
    entries = [
        {"op_types": ["Linear"], "target_names": ["weight"], "quant_dtype": "int8"},
        {"op_names": ["1"], "target_names": ["weight"], "quant_dtype": "int4"},
    ]
    with pytest.warns(UserWarning, match="1.weight"):
        session = attach(two, "toy_range", entries)
    session.compress()

    assert session.qparams()["0"]["weight"].quant_max == 127
    # 12.7 / 7
    assert session.qparams()["1"]["weight"].scale.item() == pytest.approx(12.7 / 7)


def test_bypass_observes_and_leaves_values_alone(two, attach):
    dense = two[0].weight.detach().clone()
    entry = {"op_names": ["0"], "target_names": ["_input_", "weight"], "apply_method": "bypass"}
    x = torch.tensor([[2.54, 0.1234]])
    expected = two(x)
    session = attach(two, "toy_range", [entry])
    session.calibrate([x])
    session.compress()

    assert torch.equal(two(x), expected)
    assert torch.equal(two[0].weight, dense)
    assert session.qparams()["0"]["_input_"].scale.item() == pytest.approx(0.02)
    assert session.qparams()["0"]["weight"].scale.item() == pytest.approx(0.01)
    assert session.integer_weights() == {}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_scales_of_a_model_in_half_precision_stay_float32(dtype, two, attach, everything):
    for algorithm in ("toy_range", "toy_learn", "toy_follow"):
        model = nn.Sequential(nn.Linear(2, 2)).to(dtype)
        session = attach(model, algorithm, everything)
        session.calibrate([torch.ones(1, 2, dtype=dtype)])
        session.compress()
        output = model(torch.ones(1, 2, dtype=dtype))
        before = session.qparams()["0"]
        model.float()
        model.to(dtype)

        assert output.dtype is dtype
        for target, qparams in session.qparams()["0"].items():
            assert qparams.scale.dtype is torch.float32
            assert torch.equal(qparams.scale, before[target].scale)
