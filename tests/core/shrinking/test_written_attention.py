"""Attention that forward writes out itself, of one packed projection or on one key for all."""

import pytest
import torch
from torch import nn

X = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(0))


class ByHand(nn.Module):
    """Attention of one packed projection, whose weights are a softmax that forward computes."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.dropout = nn.Dropout(0.1)
        self.packed, self.out, self.heads = nn.Linear(16, 48), nn.Linear(16, 3), 4

    def forward(self, x):
        query, key, value = (
            one.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for one in self.packed(x).chunk(3, -1)
        )
        weights = (query @ key.transpose(-2, -1) * 0.5).softmax(-1)
        return self.out((self.dropout(weights) @ value).transpose(1, 2).flatten(2))


def test_a_softmax_over_values_that_are_a_bias_leaves_that_to_the_output(help):
    model = ByHand().eval()
    rows = torch.tensor([True, False, True, False]).repeat_interleave(4).repeat(3)

    found = help.shrink(model, (X,), {"packed.weight": rows[:, None].expand(48, 16)})

    assert model.packed.weight.shape == (24, 16)
    assert [(one.bias, one.mode) for one in found.absorbed] == [("out.bias", "evaluation")]


class Multiplied(nn.Module):
    """Values that softmax weights, whose rows sum to one, do not simply average."""

    def __init__(self, equation):
        super().__init__()
        torch.manual_seed(0)
        self.equation, self.scale = equation, nn.Parameter(torch.rand(5, 5))
        self.value, self.out = nn.Linear(16, 16), nn.Linear(16, 3)

    def forward(self, x):
        weights, value = (x @ x.transpose(-2, -1)).softmax(-1), self.value(x)
        if self.equation == "tensordot":
            found = torch.tensordot(weights, value[0], dims=([1], [0]))
        elif self.equation.count(",") == 2:
            found = torch.einsum(self.equation, weights, self.scale, value)
        else:
            found = torch.einsum(self.equation, weights, value)
        return self.out(found)


@pytest.mark.parametrize(
    ("equation", "values"),
    [
        ("bqk,bkd->bqd", 8),  # averages indeed
        ("bkq,bkd->bqd", 16),  # over queries, as slots compete for inputs
        ("bqk,kj,bjd->bqd", 16),
        ("aqk,bkd->bqd", 16),  # sums over the batch as well
        ("tensordot", 16),
    ],
)
def test_a_bias_goes_through_an_einsum_only_where_the_weights_average(help, equation, values):
    model = Multiplied(equation).eval()
    rows = torch.tensor([True, False]).repeat(8)

    help.shrink(model, (X,), {"value.weight": rows[:, None].expand(16, 16)})

    assert model.value.weight.shape == (values, 16)


class OneKey(nn.Module):
    """Queries of four heads on the keys and values of one (multi-query attention)."""

    def __init__(self, how):
        super().__init__()
        torch.manual_seed(0)
        self.query, self.key, self.value = nn.Linear(16, 16), nn.Linear(16, 4), nn.Linear(16, 4)
        self.out, self.how = nn.Linear(16, 3), how

    def forward(self, x):
        query, key, value = (
            layer(x).unflatten(-1, (-1, 4)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        if self.how == "repeated":
            key, value = (
                one[:, :, None].expand(-1, -1, query.shape[1], -1, -1).flatten(1, 2)
                for one in (key, value)
            )
        found = nn.functional.scaled_dot_product_attention(
            query, key, value, enable_gqa=self.how == "grouped"
        )
        return self.out(found.transpose(1, 2).flatten(2))


@pytest.mark.parametrize("how", ["broadcast", "grouped", "repeated"])
def test_query_heads_go_alone_where_one_key_serves_all(help, how):
    model = OneKey(how).eval()
    rows = torch.tensor([True, False, True, False]).repeat_interleave(4)
    kept = help.rows(model, ["query"], rows) | {"out.weight": rows[None].expand(3, 16)}

    found = help.shrink(model, (X,), kept)

    assert found.stays == ()
    assert (model.query.weight.shape, model.out.weight.shape) == ((8, 16), (3, 8))
    assert model.key.weight.shape == (4, 16)
