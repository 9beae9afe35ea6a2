"""Encoders that are given a padding mask in evaluation hand nested tensors to nobody who looks."""

import copy
import pickle

import pytest
import torch
from torch import nn

import tersely

pytestmark = pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")

PADDING = torch.tensor([[False, False, False, True, True], [False] * 5])


@pytest.fixture
def tokens():
    return torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(2))


def encoder(seed=0):
    torch.manual_seed(seed)
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0, batch_first=True)
    return nn.TransformerEncoder(layer, 2).eval()


def padded(model, tokens):
    with torch.no_grad():
        return model(tokens, src_key_padding_mask=PADDING)


@pytest.mark.parametrize("name", ["layers.0.linear1", "layers.1.norm2", "layers.0"])
def test_outputs_inside_a_padded_encoder_are_masked(tokens, prune, name):
    model = encoder()
    entry = {"op_names": [name], "target_names": ["_output_"], "sparse_ratio": 0.5}
    batch = {"src": tokens, "src_key_padding_mask": PADDING}
    prune(model, entry, algorithm="toy_rows", data=[batch])
    training = model(tokens.requires_grad_(), src_key_padding_mask=PADDING)
    found = padded(model.eval(), tokens)
    torch.testing.assert_close(found[~PADDING], training.detach()[~PADDING])


def test_masked_weights_alone_leave_an_encoder_its_nested_tensors(tokens, prune):
    model = encoder()
    prune(model, {"op_types": ["Linear"], "sparse_ratio": 0.5})
    assert padded(model, tokens)[PADDING].eq(0).all()


def test_copies_of_an_encoder_go_without_nested_tensors_too(tokens, prune):
    model = encoder()
    entry = {"op_names": ["layers.0"], "target_names": ["_output_"], "sparse_ratio": 0.5}
    prune(model, entry, algorithm="toy_rows", data=[{"src": tokens}])
    expected = padded(model, tokens)
    assert torch.equal(padded(copy.deepcopy(model), tokens), expected)
    assert torch.equal(padded(pickle.loads(pickle.dumps(model)), tokens), expected)


def test_detaching_gives_an_encoder_its_nested_tensors_back(tokens, prune):
    model = encoder()
    expected = padded(model, tokens)
    entry = {"op_names": ["layers.0"], "target_names": ["_output_"], "sparse_ratio": 0.5}
    session = prune(model, entry, algorithm="toy_rows", data=[{"src": tokens}])
    session.detach()
    assert type(model) is nn.TransformerEncoder
    assert model.use_nested_tensor
    assert torch.equal(padded(model, tokens), expected)


@pytest.mark.usefixtures("toy_losses")
@pytest.mark.parametrize("name", ["layers.0", "layers.1.linear2"])
def test_a_padded_teacher_shows_what_its_layers_make(tokens, name):
    student, teacher = encoder(), encoder(1)
    entry = {"op_names": [name], "apply_method": "toy_square"}
    session = tersely.distill(student, [entry], teacher=teacher)
    session.teacher_forward(tokens, src_key_padding_mask=PADDING)
    student(tokens, src_key_padding_mask=PADDING)
    made = {}
    for model in (encoder(), encoder(1)):
        module = model.get_submodule(name)
        module.register_forward_hook(lambda _, __, out, key=model: made.update({key: out}))
        model.use_nested_tensor = False
        model(tokens, src_key_padding_mask=PADDING)
    ours, theirs = made.values()
    torch.testing.assert_close(session.loss(), (ours - theirs).square().mean())
    session.detach()
    assert teacher.use_nested_tensor
