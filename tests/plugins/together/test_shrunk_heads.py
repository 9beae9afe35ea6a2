"""A session on `torch.nn.MultiheadAttention`: whole heads go, and it goes on, saves and loads."""

import copy
import pickle

import pytest
import torch
from torch import nn

import tersely
from tersely.shrinking.heads import FewerHeads

X = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(0))
HALF = {"granularity": [4, -1], "dependency_parts": 3, "sparse_ratio": 0.5}
HEADS = [
    {
        "op_types": ["MultiheadAttention"],
        "target_names": ["in_proj_weight", "in_proj_bias"],
        "target_settings": {"in_proj_weight": HALF},
    }
]


class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 4, 24, dropout=0.0, batch_first=True)
        self.encoder, self.head = nn.TransformerEncoder(layer, 2), nn.Linear(16, 3)

    def forward(self, x):
        return self.head(self.encoder(x))


def pruned():
    torch.manual_seed(0)
    model = Tagger().eval()
    return model, tersely.prune(model, HEADS, algorithm="l1_norm")


def train(model, session, optimizer, steps):
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = model(X).square().mean()
        loss.backward()
        optimizer.step()
        session.step()
        losses.append(loss.item())
    return losses


def attentions(model):
    return [layer.self_attn for layer in model.encoder.layers]


def test_half_of_the_heads_go_and_training_goes_on_as_with_masks():
    losses = []
    for is_shrunk in (False, True):
        model, session = pruned()
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        before = train(model, session, optimizer, 2)
        if is_shrunk:
            session.shrink(X, optimizer=optimizer)
            assert [one.in_proj_weight.shape for one in attentions(model)] == [(24, 16)] * 2
        losses.append(before + train(model, session, optimizer, 3))

    torch.testing.assert_close(losses[1], losses[0], rtol=1e-5, atol=1e-7)


def test_operations_of_an_encoder_are_counted_before_and_after():
    _, session = pruned()

    shrunk = session.shrink(X)

    # Of each layer: 10 positions times 4 matrices of 16 x 16, then x 8; 2 x 5 x 5 scores and sums.
    heads = [(10 * 4 * 16 * width + 2 * 2 * 25 * width) for width in (16, 8)]
    rest = 10 * 2 * 16 * 24
    assert shrunk.macs == tuple(2 * (one + rest) + 10 * 16 * 3 for one in heads)


def test_a_finalized_model_is_copied_pickled_and_pruned_again():
    model, session = pruned()
    session.shrink(X)
    model = session.finalize()
    expected = model(X)

    again = pickle.loads(pickle.dumps(copy.deepcopy(model)))
    torch.testing.assert_close(again(X), expected, rtol=0, atol=0)
    assert isinstance(attentions(again)[0], FewerHeads)

    session = tersely.prune(again, HEADS, algorithm="l1_norm")
    session.shrink(X)
    assert [one.num_heads for one in attentions(session.finalize())] == [1, 1]


def test_a_fresh_model_gets_the_heads_of_a_saved_one(tmp_path):
    model, session = pruned()
    session.shrink(X)
    session.save(tmp_path / "small")

    fresh = tersely.load_shrunk(Tagger(), tmp_path / "small").eval()
    other = Tagger().eval()
    resumed = tersely.load_session(other, tmp_path / "small")
    other.load_state_dict(model.state_dict())

    torch.testing.assert_close(fresh(X), model(X), rtol=0, atol=0)
    torch.testing.assert_close(other(X), model(X), rtol=0, atol=0)
    assert resumed.masks()["encoder.layers.0.self_attn"]["in_proj_weight"].shape == (24, 16)


def test_attention_is_torchs_own_again_after_an_error():
    model, session = pruned()
    optimizer = torch.optim.Adam(model.parameters())
    train(model, session, optimizer, 1)
    name = "encoder.layers.0.self_attn.in_proj_weight"
    optimizer.state[dict(model.named_parameters())[name]]["odd"] = torch.zeros(5)
    before = model(X)

    with pytest.raises(tersely.SessionError, match="'odd'"):
        session.shrink(X, optimizer=optimizer)

    assert torch.equal(model(X), before)
    session.detach()
    assert all(type(one) is nn.MultiheadAttention for one in attentions(model))
