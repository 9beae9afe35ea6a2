"""Numbers by hand: what goes when the lowest of these blocks go."""

import sys
from types import ModuleType

import pytest
import torch
from torch import nn

import tersely


class Magnitude:
    def importance(self, target):
        return target.tensor.abs()


class Face:
    @tersely.hookimpl
    def tersely_pruners(self):
        return [tersely.PrunerInfo(name="magnitude", implementation="plain:Magnitude")]


@pytest.fixture(autouse=True)
def magnitude(monkeypatch):
    module = ModuleType("plain")
    module.Magnitude = Magnitude
    monkeypatch.setitem(sys.modules, "plain", module)
    name = tersely.registry().register(Face(), name="of-these-tests")
    yield
    tersely.registry().unregister(name)


def pruned(model, granularity, *, names=("weight",), ratio=0.5):
    keys = {"granularity": granularity, "sparse_ratio": ratio}
    entry = {
        "op_types": [type(model).__name__],
        "target_names": list(names),
        "target_settings": dict.fromkeys(names, keys),
    }
    return tersely.prune(model, [entry], algorithm="magnitude")


def test_the_diagonals_with_the_lowest_sums_go():
    model = nn.Linear(3, 3, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, -5, 2], [2, 1, 5], [5, 2, -1]]))

    # The sums are 3 (the main diagonal), 15 and 6.
    session = pruned(model, "diagonals", ratio=0.4)

    assert session.masks()[""]["weight"].int().tolist() == [[0, 1, 1], [1, 0, 1], [1, 1, 0]]


@pytest.mark.parametrize(
    ("order", "rows"),
    [("qkv", [0, 0, 1, 1] * 3), ("interleaved", [0] * 6 + [1] * 6)],
)
def test_a_head_goes_with_its_queries_keys_and_values(order, rows):
    model = nn.Linear(2, 12)
    with torch.no_grad():
        model.weight.copy_(torch.tensor(rows, dtype=torch.float32)[:, None] + 1)
        model.bias.copy_(torch.tensor(rows, dtype=torch.float32) + 1)

    session = pruned(
        model, {"packed_heads": {"heads": 2, "order": order}}, names=("weight", "bias")
    )

    kept = session.masks()[""]
    assert kept["weight"].int().tolist() == [[row, row] for row in rows]
    assert kept["bias"].int().tolist() == rows


def test_attention_without_a_head_computes_what_the_other_heads_do():
    torch.manual_seed(0)
    model = nn.MultiheadAttention(8, 2, bias=False, batch_first=True)
    with torch.no_grad():
        model.in_proj_weight[[0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19]] *= 0.01
    by_hand = nn.MultiheadAttention(8, 2, bias=False, batch_first=True)
    by_hand.load_state_dict(model.state_dict())
    with torch.no_grad():
        by_hand.out_proj.weight[:, :4] = 0  # the first head is read by no one

    pruned(model, {"packed_heads": {"heads": 2}}, names=("in_proj_weight",))

    data = torch.randn(1, 5, 8)
    assert torch.allclose(model(data, data, data)[0], by_hand(data, data, data)[0], atol=1e-6)


def test_heads_that_do_not_fit_are_refused_with_the_target():
    with pytest.raises(tersely.PlanError, match=r"weight: .*14 outputs are no queries, keys and"):
        pruned(nn.Linear(4, 14), {"packed_heads": {"heads": 2}})


def test_heads_have_to_be_stated():
    with pytest.raises(tersely.ConfigError, match="heads"):
        pruned(nn.Linear(4, 12), "packed_heads")
