"""Masks on activations: where channels are, block shapes, ``mul`` and ``add``, and the order."""

import pytest
import torch
from torch import nn

import tersely


def by_channel(model, name, target, data, ratio=0.5):
    entry = {"op_names": [name], "target_names": [target], "sparse_ratio": ratio}
    return tersely.prune(model, [entry], algorithm="toy_rows", data=[data])


def masked_channels(output, dim):
    return int((output == 0).movedim(dim, 0).flatten(1).all(1).sum())


@pytest.mark.parametrize(
    ("layer", "shape", "dim"),
    [
        (nn.Linear(4, 6), (3, 4), -1),
        (nn.Linear(4, 6), (3, 5, 4), -1),
        (nn.LayerNorm(6), (3, 5, 6), -1),
        (nn.Conv1d(4, 6, 1), (3, 4, 5), 1),
        (nn.Conv2d(4, 6, 1), (3, 4, 5, 5), 1),
        (nn.Conv3d(4, 6, 1), (3, 4, 2, 2, 2), 1),
        (nn.ConvTranspose2d(4, 6, 1), (3, 4, 5, 5), 1),
        (nn.BatchNorm1d(6), (3, 6), 1),
        (nn.BatchNorm1d(6), (3, 6, 5), 1),
        (nn.BatchNorm2d(6), (3, 6, 5, 5), 1),
        (nn.GroupNorm(2, 6), (3, 6, 5, 5), 1),
        (nn.AvgPool2d(1), (3, 6, 5, 5), 1),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else str(value),
)
def test_channels_are_masked_where_a_module_has_them(layer, shape, dim):
    model = nn.Sequential(layer)
    data = torch.rand(shape) + 1
    session = by_channel(model, "0", "_output_", data)
    assert masked_channels(model(data), dim) == 3
    assert session.masks()["0"]["_output_"].shape == layer(data).shape[1:]
    assert session.sparsity()["0"]["_output_"] == 0.5


def test_the_input_of_a_convolution_is_masked_in_dimension_1():
    model = nn.Sequential(nn.Conv2d(4, 2, 1, bias=False))
    data = torch.ones(1, 4, 3, 3)
    data[:, 1] = 5
    data[:, 3] = 7
    by_channel(model, "0", "_input_", data)
    only = data.clone()
    only[:, [0, 2]] = 0
    plain = nn.Conv2d(4, 2, 1, bias=False)
    plain.weight = model[0].weight
    assert torch.equal(model(data), plain(only))


@pytest.mark.parametrize("layer", [nn.Conv1d(4, 4, 1), nn.Conv2d(4, 4, 1), nn.MaxPool2d(1)])
def test_a_sample_without_a_batch_is_masked_as_in_a_batch_of_one(layer):
    model = nn.Sequential(layer)
    spatial = 2 if "2d" in type(layer).__name__ else 1
    data = torch.rand(2, 4, *(4,) * spatial)
    by_channel(model, "0", "_output_", data)
    torch.testing.assert_close(model(data[0]), model(data[:1])[0])


def test_samples_without_a_batch_calibrate_as_a_batch_of_them():
    model = nn.Sequential(nn.Conv2d(4, 4, 1))
    data = torch.rand(2, 4, 4, 4)
    session = by_channel(model, "0", "_output_", data)
    expected = session.masks()["0"]["_output_"]
    session.detach()
    entry = {"op_names": ["0"], "target_names": ["_output_"], "sparse_ratio": 0.5}
    again = tersely.prune(model, [entry], algorithm="toy_rows", data=list(data))
    assert torch.equal(again.masks()["0"]["_output_"], expected)


def test_every_sample_of_a_batch_of_another_size_is_masked_alike():
    model = nn.Sequential(nn.Linear(4, 6))
    by_channel(model, "0", "_output_", torch.rand(3, 4))
    output = model(torch.rand(7, 4))
    assert int((output == 0).all(0).sum()) == 3
    assert int((output == 0).any(0).sum()) == 3


def test_an_elementwise_mask_distinguishes_all_but_the_batch():
    model = nn.Sequential(nn.Identity())
    data = torch.tensor([[[1.0, 8.0], [6.0, 2.0]], [[1.0, 8.0], [6.0, 2.0]]])
    entry = {"op_names": ["0"], "target_names": ["_output_"], "sparse_ratio": 0.5}
    session = tersely.prune(model, [entry], algorithm="toy", data=[data])
    assert model(data).tolist() == [[[0.0, 8.0], [6.0, 0.0]]] * 2
    assert session.masks()["0"]["_output_"].tolist() == [[False, True], [True, False]]


def test_a_relu_after_a_convolution_follows_the_channels_of_the_convolution():
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
    align = {"align": {"module_name": "0", "target_name": "weight", "dims": [0]}}
    session = tersely.prune(
        model,
        [
            {"op_names": ["0"], "sparse_ratio": 0.5},
            {
                "op_names": ["2"],
                "target_names": ["_output_"],
                "target_settings": {"_output_": align},
            },
        ],
        algorithm="toy_rows",
    )
    with torch.no_grad():
        model[1].bias.fill_(1)
    output = model(torch.randn(2, 3, 8, 8))
    kept = session.masks()["0"]["weight"].flatten(1).any(1)
    assert torch.equal((output == 0).transpose(0, 1).flatten(1).all(1), ~kept)


def test_a_relu_after_a_linear_layer_follows_its_features():
    model = nn.Sequential(nn.Linear(3, 8), nn.ReLU())
    with torch.no_grad():
        model[0].bias.fill_(100)
    align = {"align": {"module_name": "0", "target_name": "weight", "dims": [0]}}
    session = tersely.prune(
        model,
        [
            {"op_names": ["0"], "target_names": ["weight"], "sparse_ratio": 0.5},
            {
                "op_names": ["1"],
                "target_names": ["_output_"],
                "target_settings": {"_output_": align},
            },
        ],
        algorithm="toy_rows",
    )
    kept = session.masks()["0"]["weight"].any(1)
    assert torch.equal(model(torch.randn(5, 8, 3))[0, 0] != 0, kept)


def test_an_additive_mask_on_a_softmax_input_removes_what_it_masks():
    model = nn.Sequential(nn.Softmax(-1))
    data = torch.tensor([[1.0, 3.0, 2.0, 4.0]])
    setting = {"sparse_ratio": 0.5, "apply_method": "add"}
    entry = {
        "op_names": ["0"],
        "target_names": ["_input_"],
        "target_settings": {"_input_": setting},
    }
    tersely.prune(model, [entry], algorithm="toy", data=[data])
    expected = torch.tensor([[3.0, 4.0]]).softmax(-1)[0].tolist()
    assert model(data).tolist() == [[0.0, expected[0], 0.0, expected[1]]]


def test_the_default_offset_of_an_additive_mask_is_minus_1000():
    model = nn.Sequential(nn.Identity())
    setting = {"sparse_ratio": 0.5, "apply_method": "add"}
    entry = {
        "op_names": ["0"],
        "target_names": ["_output_"],
        "target_settings": {"_output_": setting},
    }
    session = tersely.prune(model, [entry], algorithm="toy", data=[torch.tensor([[1.0, 3.0]])])
    assert model(torch.zeros(1, 2)).tolist() == [[-1000.0, 0.0]]
    assert session.masks()["0"]["_output_"].tolist() == [False, True]


def test_an_additive_mask_may_have_another_offset_and_compress_again():
    model = nn.Sequential(nn.Identity())
    setting = {"sparse_ratio": 0.5, "apply_method": "add", "mask_value": -7}
    entry = {
        "op_names": ["0"],
        "target_names": ["_output_"],
        "target_settings": {"_output_": setting},
    }
    session = tersely.prune(model, [entry], algorithm="toy", data=[torch.tensor([[1.0, 3.0]])])
    assert model(torch.zeros(1, 2)).tolist() == [[-7.0, 0.0]]
    session.calibrate([torch.tensor([[30.0, 1.0]])])
    session.compress()
    assert session.masks()["0"]["_output_"].tolist() == [True, False]


def test_masks_act_in_training_and_in_evaluation(net, x, masked):
    torch.testing.assert_close(net.train()(x), net.eval()(x))


def test_calibration_sees_an_output_after_its_mask():
    model = nn.Sequential(nn.Identity())
    data = torch.tensor([[3.0, 2.0, 1.0, 4.0]])
    entry = {"op_names": ["0"], "target_names": ["_output_"], "sparse_threshold": 1.5}
    session = tersely.prune(model, [entry], algorithm="toy", data=[data])
    session.calibrate([data * 10])
    session.compress()
    assert model(data).tolist() == [[3.0, 2.0, 0.0, 4.0]]


def test_calibration_sees_what_a_masked_weight_computes():
    model = nn.Sequential(nn.Linear(2, 2, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    session = tersely.prune(
        model,
        [
            {"op_names": ["0"], "target_names": ["weight"], "sparse_ratio": 0.5},
            {"op_names": ["0"], "target_names": ["_output_"], "sparse_ratio": 0.5},
        ],
        algorithm="toy",
        data=[torch.ones(1, 2)],
    )
    session.calibrate([torch.ones(1, 2)])
    (statistic,) = session._engines.pruning.statistics.values()
    assert statistic.mean().tolist() == [0.0, 7.0]
