"""In how many runs channels go evenly: groups of convolutions and norms, heads, halves."""

import pytest
import torch
from torch import nn
from torch.nn import functional

import tersely

HEADS = 4


class Grouped(nn.Module):
    """conv -> a convolution in groups; further parts beside conv by concatenation."""

    def __init__(self, *parts, groups):
        super().__init__()
        self.parts = nn.ModuleList(nn.Conv2d(3, part, 1) for part in parts)
        self.grouped = nn.Conv2d(sum(parts), 12, 1, groups=groups)

    def forward(self, x):
        return self.grouped(torch.cat([part(x) for part in self.parts], 1))


class Normed(nn.Module):
    def __init__(self, groups):
        super().__init__()
        self.a, self.norm = nn.Conv2d(3, 8, 1), nn.GroupNorm(groups, 8)
        self.b = nn.Conv2d(8, 2, 1)

    def forward(self, x):
        return self.b(self.norm(self.a(x)))


class Attention(nn.Module):
    def __init__(self, *, fused):
        super().__init__()
        self.fused = fused
        self.embed, self.head = nn.Linear(6, 16), nn.Linear(16, 3)
        self.q, self.k, self.v, self.out = (nn.Linear(16, 16) for _ in range(4))

    def forward(self, x):
        x = self.embed(x)
        q, k, v = (
            project(x).view(*x.shape[:2], HEADS, -1).transpose(1, 2)
            for project in (self.q, self.k, self.v)
        )
        if self.fused:
            mixed = functional.scaled_dot_product_attention(q, k, v)
        else:
            mixed = torch.softmax(q @ k.transpose(-1, -2), -1) @ v
        return self.head(x + self.out(mixed.transpose(1, 2).flatten(2)))


class Packed(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.how = how
        self.embed, self.head = nn.Linear(6, 16), nn.Linear(16, 3)
        self.qkv, self.out = nn.Linear(16, 48), nn.Linear(16, 16)

    def forward(self, x):
        x = self.embed(x)
        q, k, v = self.take(self.qkv(x))
        mixed = functional.scaled_dot_product_attention(q, k, v)
        return self.head(x + self.out(mixed.transpose(1, 2).flatten(2)))

    def take(self, packed):
        batch, length, _ = packed.shape
        if self.how == "split":
            parts = packed.split(16, -1)
            return (part.view(batch, length, HEADS, 4).transpose(1, 2) for part in parts)
        packed = packed.view(batch, length, 3, HEADS, 4).permute(2, 0, 3, 1, 4)
        return packed.unbind(0) if self.how == "unbind" else (packed[0], packed[1], packed[-1])


class Halves(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 16, 1), nn.Conv2d(8, 8, 1), nn.Conv2d(16, 2, 1)

    def forward(self, x):
        first, second = self.a(x).chunk(2, 1)
        return self.c(torch.cat([second, self.b(first)], 1))


def vision_transformer():
    layer = nn.TransformerEncoderLayer(16, HEADS, 32, batch_first=True, norm_first=True)
    return nn.Sequential(nn.Linear(6, 16), layer, nn.Linear(16, 2))


def test_a_grouped_convolution_and_its_input_lose_equally_many_in_each_group(tied, image):
    assert tied(Grouped(8, groups=2), image) == ([], {"parts.0": 2, "grouped": 2})


def test_a_convolution_into_three_and_out_of_two_groups_has_six_runs(tied, image):
    model = nn.Sequential(nn.Conv2d(3, 12, 1), nn.Conv2d(12, 12, 1, groups=2))
    model.append(nn.Conv2d(12, 12, 1, groups=3))

    assert tied(model, image) == ([], {"0": 2, "1": 6, "2": 3})


def test_parts_that_fill_groups_are_each_cut_by_groups(tied, image):
    # 8 + 24 channels in 2 groups of 16: the second part has 8 channels in the first group.
    assert tied(Grouped(8, 24, groups=2), image)[1] == {"parts.1": 3, "grouped": 2}


def test_parts_in_one_group_are_cut_into_runs_of_one_length(tied, image):
    # 4 + 4 + 8 in 2 groups of 8: floor(r * 8) of the last and twice floor(r * 4) of the others.
    assert tied(Grouped(4, 4, 8, groups=2), image)[1] == {"parts.2": 2, "grouped": 2}


def test_a_depthwise_convolution_needs_no_runs(tied, image):
    assert tied(Grouped(12, groups=12), image) == ([["parts.0", "grouped"]], {})


@pytest.mark.parametrize(("groups", "runs"), [(1, {}), (2, {"a": 2}), (4, {"a": 4}), (8, {})])
def test_groups_of_a_norm_stay_equal_unless_they_hold_one_channel(tied, image, groups, runs):
    assert tied(Normed(groups), image) == ([], runs)


@pytest.mark.parametrize("fused", [False, True])
def test_query_key_and_value_are_tied_and_lose_equally_many_in_each_head(tied, tokens, fused):
    groups, runs = tied(Attention(fused=fused), tokens)

    assert groups == [["embed", "out"], ["q", "k", "v"]]
    assert runs == dict.fromkeys("qkv", HEADS)


@pytest.mark.parametrize("how", ["unbind", "index", "split"])
def test_a_packed_projection_loses_equally_many_in_each_head_of_each_part(tied, tokens, how):
    assert tied(Packed(how), tokens) == ([["embed", "out"]], {"qkv": 3 * HEADS})


def test_an_attention_module_is_cut_by_heads_and_tied_at_its_output(tied, tokens):
    types = ("Linear", "MultiheadAttention", "NonDynamicallyQuantizableLinear")

    groups, runs = tied(vision_transformer(), tokens, types=types)

    assert groups == [["0", "1.self_attn.out_proj", "1.linear2"]]
    assert runs == {"1.self_attn": 3 * HEADS}


def test_separate_projections_of_an_attention_module_are_tied_to_each_other():
    class Cross(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(16, HEADS, kdim=6, vdim=6, batch_first=True)

        def forward(self, query, other):
            return self.attention(query, other, other)[0]

    names = ["q_proj_weight", "k_proj_weight", "v_proj_weight"]
    given = [{"op_names": ["attention"], "target_names": names, "sparse_ratio": 0.5}]

    found = tersely.auto_dependency_groups(
        Cross(), given, (torch.zeros(1, 2, 16), torch.zeros(1, 3, 6))
    )

    group = {"dependency_group_id": "channels_of_attention", "internal_metric_block": HEADS}
    assert found == [{**given[0], **group}]


def test_a_tensor_that_is_halved_loses_equally_many_in_each_half(tied, image):
    assert tied(Halves(), image) == ([], {"a": 2})
