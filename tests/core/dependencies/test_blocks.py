"""Channels that go together in blocks: packed weights, shuffled pixels, shared key heads."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from tersely.contracts.tracer import ChannelBlocks
from tersely.shrinking.graph.members import cut_alike


class Between(nn.Module):
    def __init__(self, operation, after):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 1), nn.Conv2d(after, 4, 1)
        self.operation = operation

    def forward(self, x):
        return self.b(self.operation(self.a(x)))


class RootMeanSquare(nn.Module):
    """A norm written out, with a scale."""

    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x):
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))


NORMS = {
    "none": nn.Identity,
    "layer norm": lambda: nn.LayerNorm(4),
    "rms norm": lambda: nn.RMSNorm(4),
    "written": lambda: RootMeanSquare(4),
    "softmax": lambda: nn.Softmax(-1),
}


class Queries(nn.Module):
    """Four heads of query for two of key and value, normalized, with positions turned or not."""

    def __init__(self, *, is_turned, norm=nn.Identity):
        super().__init__()
        self.is_turned = is_turned
        self.norms = nn.ModuleList([norm(), norm()])
        self.q, self.k, self.v = nn.Linear(6, 16), nn.Linear(6, 8), nn.Linear(6, 8)
        self.out = nn.Linear(16, 6)

    def forward(self, x):
        batch, length, _ = x.shape
        q = self.norms[0](self.q(x).view(batch, length, 4, 4))
        k = self.norms[1](self.k(x).view(batch, length, 2, 4))
        v = self.v(x).view(batch, length, 2, 4)
        q, k, v = self.turned(q.transpose(1, 2)), k.transpose(1, 2), v.transpose(1, 2)
        k, v = (
            one[:, :, None].expand(batch, 2, 2, length, 4).reshape(batch, 4, length, 4)
            for one in (self.turned(k), v)
        )
        mixed = functional.scaled_dot_product_attention(q, k, v)
        return self.out(mixed.transpose(1, 2).flatten(2))

    def turned(self, x):
        if not self.is_turned:
            return x
        angle = torch.arange(x.shape[2])[:, None] * torch.tensor([1.0, 0.1, 1.0, 0.1])
        half = torch.cat([-x[..., 2:], x[..., :2]], -1)
        return x * angle.cos() + half * angle.sin()


class Gated(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(6, 20), nn.Linear(10, 6)

    def forward(self, x):
        return self.down(functional.glu(self.up(x), -1))


class GatedByHalves(Gated):
    def forward(self, x):
        gate, value = self.up(x).chunk(2, -1)
        return self.down(functional.silu(gate) * value)


class C2f(nn.Module):
    """The block of YOLOv8 with shortcuts."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 1), nn.Conv2d(16, 4, 1)
        self.inner = nn.ModuleList(
            nn.Sequential(nn.Conv2d(4, 6, 3, padding=1), nn.Conv2d(6, 4, 3, padding=1))
            for _ in range(2)
        )

    def forward(self, x):
        parts = list(self.first(x).chunk(2, 1))
        for inner in self.inner:
            parts.append(parts[-1] + inner(parts[-1]))
        return self.last(torch.cat(parts, 1))


class Recurrent(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.layer, self.head = kind(6, 8, batch_first=True), nn.Linear(8, 2)

    def forward(self, x):
        return self.head(self.layer(x)[0])


def shuffle(x):
    batch, channels, height, width = x.shape
    return x.view(batch, 2, channels // 2, height, width).transpose(1, 2).reshape(x.shape)


def test_pixels_that_are_shuffled_take_neighbouring_channels(keys_of, image):
    model = Between(lambda x: functional.pixel_shuffle(x, 2), 2)

    assert keys_of(model, image)["a"] == {"granularity": [4, -1, -1, -1]}


def test_shuffled_channels_go_in_pairs(keys_of, image):
    assert keys_of(Between(shuffle, 8), image)["a"] == {"dependency_parts": 2}


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("is_turned", [False, True])
def test_heads_that_serve_several_queries_go_whole(keys_of, tokens, is_turned, norm):
    found = keys_of(Queries(is_turned=is_turned, norm=NORMS[norm]), tokens)

    group = {"dependency_group_id": "channels_of_q"}
    assert found["q"] == {**group, "granularity": [8, -1]}
    assert found["k"] == found["v"] == {**group, "granularity": [4, -1]}


def test_heads_that_a_norm_of_each_scales_go_whole(keys_of, tokens):
    class Heads(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(6, 12), nn.Linear(12, 6)
            self.norm = nn.LayerNorm(4)

        def forward(self, x):
            return self.b(self.norm(self.a(x).unflatten(-1, (3, 4))).flatten(-2))

    assert keys_of(Heads(), tokens)["a"] == {"granularity": [4, -1]}


@pytest.mark.parametrize("kind", [Gated, GatedByHalves])
def test_gate_and_values_of_one_weight_go_together(keys_of, tokens, kind):
    assert keys_of(kind(), tokens)["up"] == {"dependency_parts": 2}


def test_both_halves_of_a_block_with_shortcuts_follow_its_stream(keys_of, image):
    found = keys_of(C2f(), image)

    group = {"dependency_group_id": "channels_of_first"}
    assert found["first"] == {**group, "dependency_parts": 2}
    assert found["inner.0.1"] == found["inner.1.1"] == group


@pytest.mark.parametrize(("kind", "gates"), [(nn.LSTM, 4), (nn.GRU, 3)])
def test_a_hidden_unit_is_a_row_of_every_gate(keys_of, tokens, kind, gates):
    found = keys_of(Recurrent(kind), tokens, types=(kind.__name__,))

    assert found["layer"] == {
        "dependency_group_id": "channels_of_layer",
        "dependency_parts": gates,
    }


def test_a_packed_projection_has_three_parts_of_as_many_heads(keys_of, tokens):
    class Packed(nn.Module):
        def __init__(self):
            super().__init__()
            self.qkv, self.out = nn.Linear(6, 48), nn.Linear(16, 6)

        def forward(self, x):
            batch, length, _ = x.shape
            packed = self.qkv(x).view(batch, length, 3, 4, 4).permute(2, 0, 3, 1, 4)
            mixed = functional.scaled_dot_product_attention(*packed.unbind(0))
            return self.out(mixed.transpose(1, 2).flatten(2))

    assert keys_of(Packed(), tokens)["qkv"] == {
        "internal_metric_block": 12,
        "dependency_parts": 3,
    }


def test_members_without_a_common_cut_have_none():
    assert cut_alike([[0, 1, 2], [0, 3]]) is None


def test_a_member_of_both_halves_has_two_parts():
    halves = [[0, 1], [2, 3], [0, 1, 2, 3]]

    assert cut_alike(halves) == (ChannelBlocks(), ChannelBlocks(), ChannelBlocks(parts=2))
