"""Attention that forward writes out itself, of one packed projection or on one key for all."""

import pytest
import torch
from messages.shrinking import SAME_RATIO
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


class Grouped(nn.Module):
    """Queries of six heads, three on each of two keys (grouped-query attention)."""

    def __init__(self, how):
        super().__init__()
        torch.manual_seed(0)
        self.query, self.key, self.value = nn.Linear(16, 24), nn.Linear(16, 8), nn.Linear(16, 8)
        self.out, self.how, self.repeats = nn.Linear(24, 3), how, 3

    def repeat(self, x):
        if self.how == "interleaved":
            return x.repeat_interleave(self.repeats, 1)
        n, count, length, size = x.shape
        wide = x[:, :, None].expand(n, count, self.repeats, length, size)
        return wide.reshape(n, count * self.repeats, length, size)

    def forward(self, x):
        query, key, value = (
            layer(x).unflatten(-1, (-1, 4)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        if self.how == "operator":
            found = nn.functional.scaled_dot_product_attention(query, key, value, enable_gqa=True)
        else:
            key, value = self.repeat(key), self.repeat(value)
            found = (query @ key.transpose(2, 3) * 0.5).softmax(-1) @ value
        return self.out(found.transpose(1, 2).flatten(2))


GROUPED = ("operator", "expanded", "interleaved")


def queries(help, model, kept):
    """Masks of heads of queries, and of what the output reads of them."""
    rows = help.keep(6, kept).repeat_interleave(4)
    return help.rows(model, ["query"], rows) | {"out.weight": rows[None].expand(3, 24)}


@pytest.mark.parametrize("how", GROUPED)
@pytest.mark.parametrize("left", [[0, 2, 3, 4], [1, 5]])
def test_as_many_heads_of_queries_go_from_each_key(help, how, left):
    model = Grouped(how).eval()

    found = help.shrink(model, (X,), queries(help, model, left))

    assert found.stays == ()
    rows = 4 * len(left)
    assert (model.query.weight.shape, model.out.weight.shape) == ((rows, 16), (3, rows))
    assert model.key.weight.shape == (8, 16)
    assert model.repeats == (3 if how == "operator" else len(left) // 2)


@pytest.mark.parametrize("how", GROUPED)
def test_where_one_key_loses_more_heads_of_queries_the_rest_stays_and_says_so(help, how):
    model = Grouped(how).eval()

    found = help.shrink(model, (X,), queries(help, model, [0, 3, 4]))

    assert model.query.weight.shape == (16, 16)
    hints = {one.hint for one in found.stays if one.target == "query.weight"}
    assert hints == {SAME_RATIO}


@pytest.mark.parametrize("how", GROUPED)
def test_a_key_goes_with_all_its_queries_beside_one_that_loses_some(help, how):
    model = Grouped(how).eval()
    kept = queries(help, model, [3, 5])
    kept |= help.rows(model, ["key", "value"], help.keep(8, range(4, 8)))

    found = help.shrink(model, (X,), kept)

    assert found.stays == ()
    assert (model.query.weight.shape, model.key.weight.shape) == ((8, 16), (4, 16))


@pytest.mark.parametrize("how", GROUPED)
def test_a_key_that_is_masked_whole_takes_queries_along_that_are_not(help, how):
    model = Grouped(how).eval()
    kept = help.rows(model, ["key", "value"], help.keep(8, range(4)))

    found = help.shrink(model, (X,), kept)

    assert found.stays == ()
    assert (model.query.weight.shape, model.value.weight.shape) == ((12, 16), (4, 16))
