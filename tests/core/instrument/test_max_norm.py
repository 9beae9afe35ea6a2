"""Embeddings with ``max_norm``, whose forward writes into the weight (PyTorch's own semantics)."""

import pytest
import torch
from torch import nn

import tersely
from tersely.errors import SessionError

ROWS = torch.tensor([[3.0, 4.0], [0.6, 0.8], [6.0, 8.0], [0.0, 2.0]])


def _embedding(cls, **options):
    module = cls(4, 2, max_norm=1.0, **options)
    module.load_state_dict({"weight": ROWS})
    return module


def _looked_up(module, *rows):
    return module(torch.tensor([[row] for row in rows]))


KINDS = pytest.mark.parametrize("cls", [nn.Embedding, nn.EmbeddingBag], ids=["one", "bag"])


def _masked(module, mask):
    entry = {"op_names": [""], "target_names": ["weight"], "sparse_ratio": 0.5}
    session = tersely.attach(module, {"pruning": {"algorithm": "toy", "config_list": [entry]}})
    session.compress()
    session.set_masks({"": {"weight": mask}})
    return session


@KINDS
@pytest.mark.parametrize("mode", [torch.no_grad, torch.enable_grad, torch.inference_mode])
def test_rows_that_are_looked_up_are_shortened_by_what_of_them_is_kept(cls, mode):
    module = _embedding(cls)
    session = _masked(module, torch.tensor([[0, 1], [1, 1], [1, 1], [1, 1]]).bool())
    with mode():
        found = _looked_up(module, 0, 1, 0)
    session.step()
    assert found.flatten(1).tolist() == [
        pytest.approx(row) for row in ([0.0, 1.0], [0.6, 0.8], [0.0, 1.0])
    ]
    # Of the first row 4 is kept, so all of it is divided by 4; the last two were not looked up.
    expected = torch.tensor([[0.75, 1.0], [0.6, 0.8], [6.0, 8.0], [0.0, 2.0]])
    torch.testing.assert_close(module._parameters["weight"].detach(), expected)


@KINDS
def test_a_lost_write_is_refused_before_a_row_is_shortened(cls):
    module = _embedding(cls)
    _masked(module, torch.ones(4, 2).bool())
    with torch.no_grad():
        torch._foreach_mul_([module.weight], 2.0)
    with pytest.raises(SessionError, match="weight was written into"):
        _looked_up(module, 0)
    assert torch.equal(module._parameters["weight"].detach(), ROWS)


@KINDS
def test_the_finished_embedding_looks_up_the_same(cls):
    module = _embedding(cls)
    session = _masked(module, torch.tensor([[0, 1], [1, 0], [1, 1], [0, 0]]).bool())
    masked = _looked_up(module, 0, 1, 2, 3).detach()
    finished = session.finalize()
    torch.testing.assert_close(_looked_up(finished, 0, 1, 2, 3).detach(), masked)


@KINDS
def test_training_ends_as_that_of_a_plain_embedding_whose_weight_is_multiplied_by_the_mask(cls):
    mask = torch.tensor([[0, 1], [1, 1], [1, 1], [1, 0]]).bool()
    module, plain = _embedding(cls), _embedding(cls)
    _masked(module, mask)
    plain.weight.data.mul_(mask)
    for rows in ((0, 2), (3, 3), (1, 0)):
        for one in (module, plain):
            one.zero_grad()
            (_looked_up(one, *rows) - 1).square().sum().backward()
            weight = one._parameters["weight"]
            with torch.no_grad():
                weight -= 0.5 * mask * weight.grad
    _looked_up(module, 0, 1, 2, 3)
    _looked_up(plain, 0, 1, 2, 3)
    torch.testing.assert_close(module.weight.detach(), plain.weight.detach())


@KINDS
def test_two_calls_before_backward_train(cls):
    module = _embedding(cls)
    _masked(module, torch.ones(4, 2).bool())
    with torch.no_grad():
        module._parameters["weight"] *= 3
    (_looked_up(module, 0, 1) + _looked_up(module, 2, 3)).sum().backward()
    assert module._parameters["weight"].grad.isfinite().all()
    assert _looked_up(module, 0, 1, 2, 3).norm(dim=-1).max() <= 1 + 1e-6


@KINDS
def test_a_compiled_embedding_shortens_rows_too(cls):
    module = _embedding(cls)
    _masked(module, torch.tensor([[0, 1], [1, 1], [1, 1], [1, 1]]).bool())
    torch.compile(module, backend="eager", fullgraph=True)(torch.tensor([[0], [1]]))
    torch.testing.assert_close(module._parameters["weight"][0].detach(), torch.tensor([0.75, 1.0]))


def test_without_a_bound_nothing_is_shortened():
    module = nn.Embedding(4, 2)
    module.load_state_dict({"weight": ROWS})
    _masked(module, torch.ones(4, 2).bool())
    assert _looked_up(module, 2).flatten().tolist() == [6.0, 8.0]
