"""Structures whose channels go in blocks: found, masked alike, and cut out."""

import pytest
import torch
from torch import nn
from torch.nn import functional

import tersely

TOKENS = torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(0))
IMAGE = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Gated(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(6, 20), nn.Linear(10, 6)

    def forward(self, x):
        return self.down(functional.glu(self.up(x), -1))


class Shared(nn.Module):
    """Four heads of query for two of key and value."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v = nn.Linear(6, 16), nn.Linear(6, 8), nn.Linear(6, 8)
        self.out = nn.Linear(16, 6)

    def forward(self, x):
        batch, length, _ = x.shape
        q, k, v = (
            project(x).view(batch, length, -1, 4).transpose(1, 2)
            for project in (self.q, self.k, self.v)
        )
        mixed = functional.scaled_dot_product_attention(q, k, v, enable_gqa=True)
        return self.out(mixed.transpose(1, 2).flatten(2))


class C2f(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 1), nn.Conv2d(12, 4, 1)
        self.inner = nn.Sequential(nn.Conv2d(4, 6, 3, padding=1), nn.Conv2d(6, 4, 3, padding=1))

    def forward(self, x):
        first, second = self.first(x).chunk(2, 1)
        return self.last(torch.cat([first, second, second + self.inner(second)], 1))


class Shuffled(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 16, 1), nn.Conv2d(4, 2, 1)

    def forward(self, x):
        return self.last(functional.pixel_shuffle(self.first(x), 2))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.head = nn.LSTM(6, 8, batch_first=True), nn.Linear(8, 2)

    def forward(self, x):
        return self.head(self.layer(x)[0])


@pytest.mark.parametrize(
    ("build", "inputs", "names", "shapes"),
    [
        (Gated, TOKENS, ["up"], {"up.weight": (10, 6), "down.weight": (6, 5)}),
        (Shared, TOKENS, ["q", "k", "v"], {"q.weight": (8, 6), "out.weight": (6, 8)}),
        (C2f, IMAGE, ["first", "inner.1"], {"first.weight": (4, 3, 1, 1)}),
        (Shuffled, IMAGE, ["first"], {"first.weight": (8, 3, 1, 1)}),
        (Recurrent, TOKENS, ["layer"], {"layer.weight_hh_l0": (16, 4), "head.weight": (2, 4)}),
    ],
)
def test_what_is_found_shrinks_to_half(build, inputs, names, shapes):
    torch.manual_seed(0)
    model = build().eval()
    entry = {"op_names": names, "sparse_ratio": 0.5}
    stage = {"algorithm": "l1_norm", "dependency_groups": "auto", "config_list": [entry]}
    session = tersely.attach(model, {"pruning": stage}, example_inputs=inputs)
    session.compress()
    masked = model(inputs)

    session.shrink(inputs)

    found = {name: tuple(one.shape) for name, one in model.named_parameters()}
    assert {name: found[name] for name in shapes} == shapes
    torch.testing.assert_close(model(inputs), masked)
