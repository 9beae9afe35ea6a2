"""Sizes that forward computes from attributes: the attributes follow, others stay as they are."""

import pytest
import torch
from torch import nn
from torch.nn import functional

X = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(0))


class Packed(nn.Module):
    """Four heads of queries and one of keys and values out of one layer (multi-query attention)."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.packed, self.out = nn.Linear(16, 24), nn.Linear(16, 3)
        self.num_heads, self.size = 4, 4

    def forward(self, x):
        fused = self.packed(x).view(*x.shape[:2], self.num_heads + 2, self.size).transpose(1, 2)
        query, key, value = fused[:, :-2], fused[:, [-2]], fused[:, [-1]]
        found = functional.scaled_dot_product_attention(query, key, value)
        return self.out(found.transpose(1, 2).reshape(*x.shape[:2], self.num_heads * self.size))


def test_a_count_of_heads_from_which_forward_computes_a_size_follows(help):
    model = Packed().eval()
    rows = help.keep(6, [1, 3, 4, 5]).repeat_interleave(4)
    kept = help.rows(model, ["packed"], rows) | {"out.weight": rows[None, :16].expand(3, 16)}

    found = help.shrink(model, (X,), kept)

    assert found.stays == ()
    assert (model.packed.weight.shape, model.out.weight.shape) == ((16, 16), (3, 8))
    assert (model.num_heads, model.size) == (2, 4)


class Separate(nn.Module):
    """Attention whose sizes are attributes, and of which no other has to change."""

    def __init__(self, how):
        super().__init__()
        torch.manual_seed(0)
        self.query, self.key, self.value = (nn.Linear(16, 16) for _ in range(3))
        self.out, self.how = nn.Linear(16, 3), how
        self.h, self.width, self.size = 4, 16, 4 if how == "folded" else 8
        self.buckets = 8  # as many as there are heads in a batch

    def split(self, x):
        n, length, _ = x.shape
        if self.how == "folded":
            x = x.reshape(n, length, self.h, -1).transpose(1, 2)
            return x.reshape(n * self.h, length, -1)
        if self.how == "divided":
            return x.reshape(n, length, self.width // self.size, self.size).transpose(1, 2)
        return x.reshape(n, length, self.h, self.width // self.h).transpose(1, 2)

    def forward(self, x):
        query, key, value = (self.split(one(x)) for one in (self.query, self.key, self.value))
        found = (query @ key.transpose(-1, -2) * 0.5).softmax(-1) @ value
        found = found * (torch.arange(self.buckets) + 1.0).mean()
        if self.how == "folded":
            found = found.unflatten(0, (x.shape[0], -1))
        return self.out(found.transpose(1, 2).flatten(2))


@pytest.mark.parametrize(
    ("how", "size", "attributes"),
    [
        ("folded", 4, {"h": 2, "buckets": 8}),
        ("divided", 8, {"width": 8, "size": 8}),
        ("multiplied", 4, {"h": 2, "width": 8}),
    ],
)
def test_attributes_follow_heads_however_forward_makes_sizes_of_them(help, how, size, attributes):
    model = Separate(how).eval()
    heads = help.keep(16 // size, range(0, 16 // size, 2)).repeat_interleave(size)

    found = help.shrink(model, (X,), help.rows(model, ["query", "key", "value"], heads))

    assert found.stays == ()
    assert model.out.weight.shape == (3, 8)
    assert {name: getattr(model, name) for name in attributes} == attributes
