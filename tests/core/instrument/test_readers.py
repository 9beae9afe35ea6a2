"""Invariant 6: weights that are read without calling their module are masked all the same."""

import copy

import pytest
import torch
from torch import nn

import tersely

ATTENTION = {
    "op_types": ["MultiheadAttention", "NonDynamicallyQuantizableLinear"],
    "sparse_ratio": 0.5,
}


def baked(model, session):
    """A plain copy of a model, its masks multiplied into its weights by hand."""
    for module, targets in session.masks().items():
        for target, kept in targets.items():
            parameter = model.get_submodule(module)._parameters[target]
            with torch.no_grad():
                parameter.mul_(kept)
    return model


@pytest.fixture
def tokens():
    return torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("is_training", [True, False])
@pytest.mark.parametrize("sizes", [{}, {"kdim": 6, "vdim": 4}], ids=["packed", "separate"])
def test_attention_reads_masked_projections(prune, is_training, sizes):
    model = nn.MultiheadAttention(8, 2, batch_first=True, **sizes).train(is_training)
    plain = copy.deepcopy(model)
    session = prune(model, ATTENTION)
    query = torch.randn(2, 5, 8)
    key, value = torch.randn(2, 3, sizes.get("kdim", 8)), torch.randn(2, 3, sizes.get("vdim", 8))
    expected = baked(plain, session)(query, key, value)[0]
    assert torch.equal(model(query, key, value)[0], expected)


def test_attention_has_a_target_for_each_projection(prune):
    session = prune(nn.MultiheadAttention(8, 2, kdim=6, vdim=4), ATTENTION)
    assert {target: one.shape for target, one in session.masks()[""].items()} == {
        "q_proj_weight": (8, 8),
        "k_proj_weight": (8, 6),
        "v_proj_weight": (8, 4),
    }
    assert session.masks()["out_proj"]["weight"].shape == (8, 8)


def test_the_fused_encoder_layer_computes_with_masked_weights(tokens, prune):
    model = nn.TransformerEncoderLayer(8, 2, 16, dropout=0, batch_first=True).eval()
    plain = copy.deepcopy(model)
    session = prune(model, ATTENTION, {"op_types": ["Linear", "LayerNorm"], "sparse_ratio": 0.5})
    expected = baked(plain, session)
    with torch.inference_mode():
        assert torch.equal(model(tokens), expected(tokens))
        assert not torch.equal(model(tokens), torch.zeros_like(tokens))


def test_the_fused_encoder_layer_agrees_with_the_one_that_calls_its_parts(tokens, prune):
    model = nn.TransformerEncoderLayer(8, 2, 16, dropout=0, batch_first=True)
    prune(model, ATTENTION, {"op_types": ["Linear"], "sparse_ratio": 0.5})
    training = model.train()(tokens)
    with torch.inference_mode():
        torch.testing.assert_close(model.eval()(tokens), training.detach())


@pytest.mark.parametrize("target", ["_input_", "_output_"])
def test_a_masked_part_of_an_encoder_layer_is_called_in_eval_mode_too(tokens, prune, target):
    model = nn.TransformerEncoderLayer(8, 2, 16, dropout=0, batch_first=True)
    entry = {"op_names": ["linear1"], "target_names": [target], "sparse_ratio": 0.5}
    prune(model, entry, algorithm="toy_rows", data=[tokens])
    training = model.train()(tokens)
    with torch.inference_mode():
        torch.testing.assert_close(model.eval()(tokens), training.detach())


def test_detaching_gives_an_encoder_layer_its_fused_path_back(tokens, prune):
    model = nn.TransformerEncoderLayer(8, 2, 16, dropout=0, batch_first=True).eval()
    entry = {"op_names": ["linear1"], "target_names": ["_output_"], "sparse_ratio": 0.5}
    session = prune(model, entry, algorithm="toy_rows", data=[tokens])
    assert any(part._forward_pre_hooks for part in model.modules())
    session.detach()
    assert not any(part._forward_pre_hooks for part in model.modules())


def test_an_output_of_attentions_out_proj_is_refused(prune):
    model = nn.MultiheadAttention(8, 2)
    recipe = {
        "pruning": {
            "algorithm": "toy",
            "config_list": [{"op_names": ["out_proj"], "target_names": ["_output_"]}],
        }
    }
    with pytest.raises(tersely.AttachError) as caught:
        tersely.attach(model, recipe)
    assert str(caught.value) == (
        "'out_proj' is never called: MultiheadAttention reads its weight and bias and computes by "
        "itself; take the attention's own _output_ instead"
    )


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize(
    ("layer", "options", "targets"),
    [
        (nn.LSTM, {}, 4),
        (nn.LSTM, {"proj_size": 2}, 5),
        (nn.LSTM, {"proj_size": 2, "bidirectional": True, "num_layers": 2}, 20),
        (nn.LSTM, {"batch_first": True, "bias": False}, 2),
        (nn.GRU, {"bidirectional": True}, 8),
        (nn.RNN, {"num_layers": 2}, 8),
    ],
)
def test_recurrent_layers_compute_with_masked_weights(layer, options, targets, prune):
    torch.manual_seed(0)
    model = layer(3, 4, **options)
    plain = copy.deepcopy(model)
    session = prune(model, {"op_types": [layer.__name__], "sparse_ratio": 0.5})
    sequence = torch.randn(5, 2, 3)
    assert torch.equal(model(sequence)[0], baked(plain, session)(sequence)[0])
    assert len(session.masks()[""]) == targets


@pytest.mark.parametrize("cell", [nn.LSTMCell, nn.GRUCell, nn.RNNCell])
def test_recurrent_cells_compute_with_masked_weights(cell, prune):
    model = cell(3, 4)
    plain = copy.deepcopy(model)
    session = prune(model, {"op_types": [cell.__name__], "sparse_ratio": 0.5})
    value = torch.randn(2, 3)
    found, expected = model(value), baked(plain, session)(value)
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)


def test_recurrent_weights_learn_where_they_are_kept(prune):
    torch.manual_seed(0)
    model = nn.GRU(3, 4)
    session = prune(model, {"op_types": ["GRU"], "sparse_ratio": 0.5})
    model(torch.randn(5, 2, 3))[0].sum().backward()
    gradient = model._parameters["weight_ih_l0"].grad
    assert torch.equal(gradient != 0, session.masks()[""]["weight_ih_l0"])


def test_a_recurrent_layer_follows_a_change_of_dtype(prune):
    model = nn.LSTM(3, 4)
    prune(model, {"op_types": ["LSTM"], "sparse_ratio": 0.5})
    sequence = torch.randn(5, 2, 3)
    expected = model(sequence)[0]
    model.double()
    torch.testing.assert_close(model(sequence.double())[0], expected.double())


@pytest.mark.parametrize("end", ["finalize", "detach"])
def test_a_recurrent_layer_trains_after_the_session_ended(prune, end):
    model = nn.LSTM(3, 4)
    session = prune(model, {"op_types": ["LSTM"], "sparse_ratio": 0.5})
    model.double()
    getattr(session, end)()
    model(torch.randn(5, 2, 3, dtype=torch.float64))[0].sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_a_weight_read_by_its_parent_is_masked(x, prune):
    class Parent(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(6, 2, bias=False)

        def forward(self, value):
            return nn.functional.linear(value, self.layer.weight)

    model = Parent()
    session = prune(model, {"op_types": ["Linear"], "sparse_ratio": 0.5})
    weight = model._modules["layer"]._parameters["weight"] * session.masks()["layer"]["weight"]
    assert torch.equal(model(x), x @ weight.T)
