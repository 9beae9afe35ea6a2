"""The small model equals the masked one for inputs of other sizes than the example's."""

import copy
import math

import pytest
import torch
from torch import nn

from tersely.shrinking.proving import outputs
from tersely.shrinking.shrink import shrink_module

X = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0))

EARLY = torch.where(torch.arange(64) < 6, 1.0, 0.5)


class Reduced(nn.Module):
    """A layer whose masked channels hold their bias, and what forward makes of a sequence."""

    def __init__(self, how):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.out, self.how = nn.Linear(8, 8), nn.Linear(8, 3), how
        nn.init.constant_(self.first.bias, 1.5)

    def forward(self, x):
        return self.out(REDUCTIONS[self.how](self.first(x), torch.arange(x.shape[1])))


REDUCTIONS = {
    "sum": lambda x, _: x.sum(1),
    "sum over the batch": lambda x, _: x.sum(0, keepdim=True),
    "norm": lambda x, _: x.norm(dim=1),
    "logsumexp": lambda x, _: x.logsumexp(1),
    "einsum": lambda x, _: torch.einsum("ntc->nc", x),
    "mean with zeros": lambda x, _: nn.functional.pad(x, (0, 0, 1, 0)).mean(1),
    "late alone": lambda x, places: x * (places >= 8)[None, :, None],
    "where late": lambda x, places: torch.where((places >= 8)[None, :, None], x, 0.0),
    "times the length": lambda x, _: x * x.shape[1],
    "by the root of the length": lambda x, _: x / math.sqrt(x.shape[1]),
    "times the batch": lambda x, _: x * x.shape[0],
    "zero at the example's length": lambda x, _: x * (x.shape[1] - 5),
    "one as far as the example goes": lambda x, _: x * EARLY[: x.shape[1], None],
    "turned where it is longer": lambda x, _: x if x.shape[1] < 8 else x.flip(-1),
    "sum of one": lambda x, _: (2 * x.unsqueeze(1)).sum(1),
    "norm of one kept": lambda x, _: x.mean(1, keepdim=True).relu().norm(dim=1),
    "sum of a batch of one kept": lambda x, _: (x[:, None] * x[..., :1, None, :]).sum((1, 2)),
    "mean": lambda x, _: x.mean(1),
    "largest": lambda x, _: x.amax(1),
    "sum of channels": lambda x, _: (
        x.unflatten(-1, (4, 2)).sum(-1, keepdim=True).expand(-1, -1, -1, 2).flatten(2)
    ),
}


@pytest.mark.parametrize("how", REDUCTIONS)
def test_what_a_bias_takes_over_is_the_same_for_other_lengths(how):
    model = Reduced(how).eval()
    rows = (torch.arange(8) < 4)[:, None].expand(8, 8)
    masked = copy.deepcopy(model)
    masked.first.weight.data.mul_(rows)

    cut = shrink_module(model, (X,), {}, {"first.weight": rows}).cuts.get("first.weight")
    model.first.weight.data.mul_(rows if cut is None else cut(rows))

    if how in ("mean", "largest", "sum of one", "norm of one kept"):
        assert model.first.weight.shape == (4, 8)
    for shape in ((2, 5, 8), (3, 4, 8), (1, 12, 8), (4, 11, 8)):
        x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
        torch.testing.assert_close(model(x), masked(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("large", [False, True])
def test_the_reason_says_that_a_constant_follows_the_size(large, monkeypatch):
    if large:
        monkeypatch.setattr(outputs, "_LARGEST_COPY", 0)
    model = Reduced("times the length").eval()
    rows = (torch.arange(8) < 4)[:, None].expand(8, 8)

    found = shrink_module(model, (X,), {}, {"first.weight": rows})

    assert found.cuts == {}
    assert "out.bias would take over follows the size of the input" in found.stays[0].reason


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("is_flat", [False, True])
def test_it_is_said_whether_outputs_were_compared_at_other_sizes(large, is_flat, monkeypatch):
    if large:
        monkeypatch.setattr(outputs, "_LARGEST_COPY", 0)
    model = nn.Sequential(
        nn.Linear(8, 8), nn.Flatten(0 if is_flat else 1), nn.Linear(80 if is_flat else 40, 3)
    )
    rows = (torch.arange(8) < 4)[:, None].expand(8, 8)

    found = shrink_module(model, (X,), {}, {"0.weight": rows, "0.bias": rows[:, 0]})

    assert model[2].in_features == (40 if is_flat else 20)
    assert found.at_other_sizes is not is_flat


class Limited(nn.Module):
    """Attention of the last places, of which there are at most as many as there are channels."""

    def __init__(self, how):
        super().__init__()
        torch.manual_seed(0)
        self.query, self.key, self.value = (nn.Linear(8, 8) for _ in range(3))
        self.out, self.how = nn.Linear(8, 3), how
        self.limit, self.width, self.h = 8, 8, 4

    def split(self, x):
        if self.how == "plain":
            return x.view(*x.shape[:2], self.width)
        return x.view(*x.shape[:2], self.h, self.width // self.h).transpose(1, 2)

    def forward(self, x):
        x = x[:, -self.limit :] if x.shape[1] > self.limit else x
        query, key, value = (self.split(one(x)) for one in (self.query, self.key, self.value))
        found = (query @ key.transpose(-1, -2)).softmax(-1) @ value
        return self.out(found if self.how == "plain" else found.transpose(1, 2).flatten(2))


@pytest.mark.parametrize("how", ["plain", "heads"])
def test_a_number_that_only_has_the_value_of_a_size_stays(help, how):
    model = Limited(how).eval()
    kept = help.rows(model, ["query", "key", "value"], help.keep(8, [0, 1, 4, 5]))
    masked = copy.deepcopy(model)
    for name, mask in kept.items():
        masked.get_parameter(name).data.mul_(mask)

    help.shrink(model, (X,), kept)

    assert (model.limit, model.width, model.h) == (8, 4, 4 if how == "plain" else 2)
    for length in (3, 6, 12):
        x = torch.randn(2, length, 8, generator=torch.Generator().manual_seed(1))
        torch.testing.assert_close(model(x), masked(x), rtol=1e-5, atol=1e-5)
