"""Wanda: hand-computed scores, compared within each row."""

import pytest
import torch
from messages.sessions import BLOCK_BY_BLOCK, CALIBRATE_EACH_SESSION, CALIBRATE_FIRST
from torch import nn

import tersely

INPUTS = torch.tensor([[1.0, 2.0, 0.0], [0.0, 2.0, 1.0]])
WEIGHT = torch.tensor([[1.0, -2.0, 3.0], [4.0, 0.5, -1.0]])


@pytest.fixture
def layer():
    model = nn.Sequential(nn.Linear(3, 2, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(WEIGHT)
    return model


def test_the_smallest_product_of_weight_and_input_goes_in_every_row(layer):
    # Input lengths 1, sqrt(8) and 1: scores 1, 5.66, 3 in the first row, 4, 1.41, 1 in the second.
    config_list = [{"op_names": ["0"], "sparse_ratio": 0.34}]
    session = tersely.prune(layer, config_list, algorithm="wanda", data=[INPUTS])
    expected = [[False, True, True], [True, True, False]]
    assert session.masks()["0"]["weight"].tolist() == expected


def test_batches_add_up(layer):
    config_list = [{"op_names": ["0"], "sparse_ratio": 0.34}]
    together = tersely.prune(layer, config_list, algorithm="wanda", data=[INPUTS]).masks()
    layer_again = nn.Sequential(nn.Linear(3, 2, bias=False))
    layer_again.load_state_dict({"0.weight": WEIGHT})
    apart = tersely.prune(
        layer_again, config_list, algorithm="wanda", data=[INPUTS[:1], INPUTS[1:]]
    ).masks()
    assert torch.equal(together["0"]["weight"], apart["0"]["weight"])


def test_without_calibration_the_error_says_what_to_call_and_nothing_changes(layer):
    with pytest.raises(tersely.SessionError) as caught:
        tersely.prune(layer, [{"op_names": ["0"], "sparse_ratio": 0.34}], algorithm="wanda")
    assert str(caught.value) == (
        f"0.weight {BLOCK_BY_BLOCK}; {CALIBRATE_FIRST}, {CALIBRATE_EACH_SESSION}"
    )
    assert type(layer[0]) is nn.Linear
    assert torch.equal(layer[0].weight, WEIGHT)


def test_layers_of_an_encoder_that_is_given_padding_show_their_inputs():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(4, 2, 6, dropout=0, batch_first=True)
    model, seen = nn.TransformerEncoder(layer, 1).eval(), []
    batch = {"src": torch.randn(2, 3, 4), "src_key_padding_mask": torch.tensor([[0, 0, 1]] * 2) > 0}
    config_list = [{"op_names": ["layers.0.linear1"], "sparse_ratio": 0.5}]
    session = tersely.prune(model, config_list, algorithm="wanda", data=[batch])
    kept = session.masks()["layers.0.linear1"]["weight"]
    session.detach()
    model.layers[0].linear1.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    model.use_nested_tensor = False
    model(**batch)
    scores = model.layers[0].linear1.weight.abs() * seen[0].flatten(0, 1).norm(dim=0)
    for row, score in zip(kept, scores, strict=True):
        assert sorted(score.argsort()[:2].tolist()) == (~row).nonzero().flatten().tolist()
