"""Every structure: what its masks leave without effect goes, and outputs stay equal (float64)."""

import pytest
import torch
from messages.shrinking import DEPENDS_ON_INPUT, EQUALLY_MANY
from torch import nn
from torch.nn import functional

torch.manual_seed(0)
IMAGE = (torch.randn(2, 3, 9, 11, generator=torch.Generator().manual_seed(0)),)


class BasicBlock(nn.Module):
    def __init__(self, groups=1):
        super().__init__()
        self.stem, self.stem_norm = nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.first = nn.Conv2d(16, 16, 3, padding=1, bias=False, groups=groups)
        self.first_norm = nn.BatchNorm2d(16)
        self.second, self.second_norm = nn.Conv2d(16, 16, 1), nn.BatchNorm2d(16)
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        x = self.stem_norm(self.stem(x)).relu()
        inner = self.second_norm(self.second(self.first_norm(self.first(x)).relu()))
        return self.head((x + inner).relu().mean((2, 3)))


RESIDUAL = ("stem", "stem_norm", "second", "second_norm")
INNER = ("first", "first_norm")


def test_both_sides_of_an_addition_lose_the_same_channels(help):
    model = help.lived_in(BasicBlock())
    kept = help.rows(model, RESIDUAL, help.half(16)) | help.rows(
        model, INNER, help.half(16, seed=1)
    )
    help.shrink(model, IMAGE, kept)
    assert model.stem.weight.shape == (8, 3, 3, 3)
    assert model.first.weight.shape == (8, 8, 3, 3)
    assert (model.second.in_channels, model.second.out_channels) == (8, 8)
    assert model.first_norm.num_features == 8
    assert model.head.in_features == 8


def test_channels_that_only_one_side_of_an_addition_masks_stay(help):
    model = help.lived_in(BasicBlock())
    found = help.shrink(model, IMAGE, help.rows(model, ["stem", "stem_norm"], help.half(16)))
    assert found.cuts == {}
    assert {stay.reason for stay in found.stays if stay.target == "stem.weight"} == {
        f"head {DEPENDS_ON_INPUT} (linear of head)"
    }


def test_a_depthwise_convolution_goes_with_its_channel(help):
    model = help.lived_in(BasicBlock(groups=16))
    kept = help.rows(model, (*RESIDUAL, *INNER), help.half(16))
    help.shrink(model, IMAGE, kept)
    assert (model.first.groups, model.first.weight.shape) == (8, (8, 1, 3, 3))


def test_groups_of_a_convolution_lose_equally_many_inputs_and_outputs(help):
    model = help.lived_in(BasicBlock(groups=4))
    inputs = help.keep(16, [0, 1, 5, 7, 10, 11, 12, 14])
    outputs = help.keep(16, [1, 2, 3, 4, 6, 7, 8, 9, 10, 13, 14, 15])
    help.shrink(model, IMAGE, help.rows(model, RESIDUAL, inputs) | help.rows(model, INNER, outputs))
    assert (model.first.groups, model.first.weight.shape) == (4, (12, 2, 3, 3))


def test_a_group_that_loses_more_than_others_keeps_what_is_too_much(help):
    model = help.lived_in(BasicBlock(groups=4))
    outputs = help.keep(16, [2, 3, 4, 5, 6, 8, 9, 10, 12, 13, 14])  # 2, 1, 1 and 1 go
    found = help.shrink(model, IMAGE, help.rows(model, INNER, outputs))
    assert model.first.weight.shape == (12, 4, 3, 3)
    assert EQUALLY_MANY in " ".join(stay.reason for stay in found.stays)


class Mobile(nn.Module):
    """An inverted residual block with squeeze-excite, as in MobileNetV3."""

    def __init__(self):
        super().__init__()
        self.expand, self.expand_norm = nn.Conv2d(3, 12, 1, bias=False), nn.BatchNorm2d(12)
        self.depth = nn.Conv2d(12, 12, 3, padding=1, groups=12, bias=False)
        self.depth_norm = nn.BatchNorm2d(12)
        self.squeeze, self.excite = nn.Conv2d(12, 8, 1), nn.Conv2d(8, 12, 1)
        self.project, self.project_norm = nn.Conv2d(12, 6, 1, bias=False), nn.BatchNorm2d(6)
        self.head = nn.Linear(6, 4)

    def forward(self, x):
        x = functional.hardswish(self.expand_norm(self.expand(x)))
        x = functional.hardswish(self.depth_norm(self.depth(x)))
        scale = self.squeeze(functional.adaptive_avg_pool2d(x, 1)).relu()
        x = x * functional.hardsigmoid(self.excite(scale))
        return self.head(self.project_norm(self.project(x)).mean((2, 3)))


def test_squeeze_excite_goes_with_the_channels_that_it_scales(help):
    model = help.lived_in(Mobile())
    kept = help.rows(model, ["expand", "expand_norm", "depth", "depth_norm"], help.half(12))
    kept |= help.rows(model, ["squeeze"], help.half(8))
    kept |= help.rows(model, ["project", "project_norm"], help.half(6))
    help.shrink(model, IMAGE, kept)
    assert model.depth.weight.shape == (6, 1, 3, 3)
    assert model.squeeze.weight.shape == (4, 6, 1, 1)
    assert model.excite.weight.shape == (6, 4, 1, 1)
    assert model.head.weight.shape == (4, 3)


class Dense(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.first_norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.second, self.both_norm = nn.Conv2d(8, 4, 3, padding=1), nn.BatchNorm2d(12)
        self.third, self.head = nn.Conv2d(12, 4, 3, padding=1), nn.Linear(16 * 16, 3)

    def forward(self, x):
        first = self.first(x)
        both = torch.cat([first, self.second(self.first_norm(first).relu())], 1)
        return self.head(torch.cat([both, self.third(self.both_norm(both).relu())], 1).flatten(1))


def test_concatenated_channels_and_flattened_positions_go(help):
    model = help.lived_in(Dense())
    a, b, c = help.half(8), help.half(4), help.half(4, seed=2)
    kept = help.rows(model, ["first", "first_norm"], a) | help.rows(model, ["second"], b)
    kept |= help.rows(model, ["third"], c) | help.rows(model, ["both_norm"], torch.cat([a, b]))
    help.shrink(model, (IMAGE[0][:, :, :4, :4],), kept)
    assert model.third.weight.shape == (2, 6, 3, 3)
    assert model.head.weight.shape == (3, 8 * 16)


class Shuffle(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.enter = nn.Conv2d(3, 16, 1), nn.Conv2d(8, 8, 1, bias=False)
        self.depth = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
        self.leave, self.head = nn.Conv2d(8, 8, 1), nn.Conv2d(16, 4, 1)

    def forward(self, x):
        left, right = self.stem(x).relu().chunk(2, 1)
        right = self.leave(self.depth(self.enter(right).relu())).relu()
        both = torch.cat([left, right], 1)
        n, c, h, w = both.shape
        return self.head(both.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w))


def test_a_channel_shuffle_keeps_both_halves_equal(help):
    model = Shuffle()
    kept = help.rows(model, ["enter", "depth"], help.half(8))
    kept |= help.rows(model, ["leave"], help.half(8))
    kept |= help.rows(model, ["stem"], help.half(8).repeat(2))
    help.shrink(model, IMAGE, kept)
    assert model.stem.weight.shape == (8, 3, 1, 1)
    assert model.enter.weight.shape == (4, 4, 1, 1)
    assert model.head.weight.shape == (4, 8, 1, 1)


class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.down, self.deep = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 12, 3, padding=1)
        self.up, self.merge = nn.ConvTranspose2d(12, 8, 2, 2), nn.Conv2d(16, 6, 3, padding=1)
        self.head = nn.Conv2d(6, 2, 1)

    def forward(self, x):
        skip = self.down(x).relu()
        up = self.up(self.deep(functional.max_pool2d(skip, 2)).relu())
        dy, dx = skip.shape[2] - up.shape[2], skip.shape[3] - up.shape[3]
        up = functional.pad(up, [dx // 2, dx - dx // 2, dy // 2, dy - dy // 2])
        return self.head(self.merge(torch.cat([skip, up], 1)).relu())


def test_a_transposed_convolution_with_a_padded_skip_goes(help):
    model = UNet()
    kept = help.rows(model, ["down"], help.half(8)) | help.rows(model, ["deep"], help.half(12))
    kept |= help.rows(model, ["up"], help.half(8, seed=4)) | help.rows(
        model, ["merge"], help.half(6)
    )
    help.shrink(model, IMAGE, kept)
    assert model.up.weight.shape == (6, 4, 2, 2)
    assert (model.up.in_channels, model.up.out_channels) == (6, 4)
    assert model.merge.weight.shape == (3, 8, 3, 3)


class C2f(nn.Module):
    def __init__(self):
        super().__init__()
        self.enter, self.one = nn.Conv2d(3, 16, 1), nn.Conv2d(8, 8, 3, padding=1)
        self.two, self.leave = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(24, 6, 1)

    def forward(self, x):
        parts = list(self.enter(x).relu().chunk(2, 1))
        parts.append(parts[-1] + self.two(self.one(parts[-1]).relu()).relu())
        return self.leave(torch.cat(parts, 1))


def test_a_split_block_with_a_shortcut_goes(help):
    model = C2f()
    kept = help.rows(model, ["enter"], help.half(8, seed=2).repeat(2))
    kept |= help.rows(model, ["one"], help.half(8)) | help.rows(
        model, ["two"], help.half(8, seed=2)
    )
    help.shrink(model, IMAGE, kept)
    assert model.enter.weight.shape == (8, 3, 1, 1)
    assert model.leave.weight.shape == (6, 12, 1, 1)


class Upscale(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.shuffle = nn.Conv2d(3, 16, 3, padding=1), nn.PixelShuffle(2)
        self.head = nn.Conv2d(4, 2, 1)

    def forward(self, x):
        return self.head(self.shuffle(self.conv(x)).relu())


def test_a_pixel_shuffle_takes_whole_output_channels(help):
    model = Upscale()
    kept = help.rows(model, ["conv"], help.keep(4, [0, 2]).repeat_interleave(4))
    help.shrink(model, IMAGE, kept)
    assert model.conv.weight.shape == (8, 3, 3, 3)
    assert model.head.weight.shape == (2, 2, 1, 1)


class Grouped(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 12, 3), nn.GroupNorm(4, 12)
        self.head = nn.Conv2d(12, 2, 1)

    def forward(self, x):
        return self.head(self.norm(self.conv(x)).relu())


def test_a_group_norm_loses_whole_groups(help):
    model = Grouped()
    kept = help.rows(model, ["conv", "norm"], help.keep(4, [0, 2, 3]).repeat_interleave(3))
    help.shrink(model, IMAGE, kept)
    assert (model.norm.num_groups, model.norm.num_channels) == (3, 9)


class Pyramid(nn.Module):
    """Two levels that share one head, as in a feature pyramid."""

    def __init__(self):
        super().__init__()
        self.fine, self.coarse = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(3, 8, 3, 2, padding=1)
        self.tower, self.head = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 4, 1)

    def forward(self, x):
        fine, coarse = self.fine(x), self.coarse(x)
        fine = fine + functional.interpolate(coarse, size=fine.shape[2:], mode="nearest")
        return [self.head(self.tower(level.relu()).relu()) for level in (fine, coarse)]


def test_a_head_that_levels_share_goes_once_for_all(help):
    model = Pyramid()
    kept = help.rows(model, ["fine", "coarse"], help.half(8))
    kept |= help.rows(model, ["tower"], help.half(8, seed=3))
    help.shrink(model, IMAGE, kept)
    assert model.tower.weight.shape == (4, 4, 3, 3)
    assert model.head.weight.shape == (4, 4, 1, 1)


class Siamese(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(6, 10), nn.Linear(10, 10)
        self.head = nn.Linear(10, 3)

    def forward(self, left, right):
        left, right = (self.second(self.first(x).relu()) for x in (left, right))
        return self.head((left - right).abs())


def test_a_network_that_is_called_twice_goes_once(help):
    model = Siamese()
    kept = help.rows(model, ["first"], help.half(10)) | help.rows(
        model, ["second"], help.half(10, seed=1)
    )
    help.shrink(model, (torch.randn(3, 6), torch.randn(3, 6)), kept)
    assert model.second.weight.shape == (5, 5)
    assert model.head.weight.shape == (3, 5)


class Tagger(nn.Module):
    def __init__(self, kind, **options):
        super().__init__()
        self.words, self.layer = nn.Embedding(11, 6), kind(6, 8, batch_first=True, **options)
        self.head = nn.Linear(8 * (2 if options.get("bidirectional") else 1), 3)

    def forward(self, words):
        return self.head(self.layer(self.words(words))[0])


def units(model, kept):
    found = {}
    for name, parameter in model.layer.named_parameters():
        rows = kept.repeat(parameter.shape[0] // kept.numel())
        found[f"layer.{name}"] = rows.view(-1, *(1,) * (parameter.ndim - 1)).expand(parameter.shape)
    return found


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_hidden_units_of_a_recurrent_layer_go(help, kind):
    model = Tagger(kind, num_layers=2, bidirectional=True)
    help.shrink(model, (torch.randint(0, 11, (2, 5)),), units(model, help.half(8)))
    assert model.layer.hidden_size == 4
    assert model.head.weight.shape == (3, 8)
    assert model.layer.weight_ih_l1.shape == (model.layer.weight_hh_l0.shape[0], 8)


class Encoder(nn.Module):
    """Attention over a packed projection whose heads forward reads from attributes, and a FFN."""

    def __init__(self, width=24, heads=4):
        super().__init__()
        self.packed, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.widen, self.narrow = nn.Linear(width, 40), nn.Linear(40, width)
        self.num_heads, self.head_dim = heads, width // heads

    def forward(self, x):
        n, length, _ = x.shape
        packed = self.packed(self.norm_1(x)).view(n, length, 3, self.num_heads, self.head_dim)
        query, key, value = packed.permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(query, key, value)
        x = x + self.out(mixed.transpose(1, 2).reshape(n, length, -1))
        return x + self.narrow(functional.gelu(self.widen(self.norm_2(x))))


def test_heads_and_feed_forward_of_a_packed_attention_go(help):
    model = Encoder()
    heads = help.keep(4, [0, 2]).repeat_interleave(6)
    kept = help.rows(model, ["packed"], heads.repeat(3)) | help.rows(
        model, ["widen"], help.half(40)
    )
    help.shrink(model, (torch.randn(2, 7, 24),), kept)
    assert model.packed.weight.shape == (36, 24)
    assert model.out.weight.shape == (24, 12)
    assert (model.num_heads, model.head_dim) == (2, 6)
    assert model.widen.out_features == 20


def test_part_of_a_head_stays(help):
    model = Encoder()
    half_a_head = help.keep(24, range(3, 24))
    kept = help.rows(model, ["packed"], half_a_head.repeat(3))
    found = help.shrink(model, (torch.randn(2, 7, 24),), kept)
    assert found.cuts == {}
    assert all("whole" in stay.reason for stay in found.stays if stay.target == "packed.weight")


class Gated(nn.Module):
    def __init__(self):
        super().__init__()
        self.gate, self.up = nn.Linear(6, 10), nn.Linear(6, 10)
        self.down = nn.Linear(10, 6)

    def forward(self, x):
        return self.down(functional.silu(self.gate(x)) * self.up(x))


def test_a_gated_unit_goes_when_one_factor_is_zero(help):
    model = Gated()
    help.shrink(model, (torch.randn(3, 6),), help.rows(model, ["up"], help.half(10)))
    assert model.gate.weight.shape == model.up.weight.shape == (5, 6)


def test_a_model_that_is_exported_twice_shrinks_twice(help):
    model = Gated()
    help.shrink(model, (torch.randn(3, 6),), help.rows(model, ["up"], help.keep(10, range(8))))
    help.shrink(model, (torch.randn(3, 6),), help.rows(model, ["up"], help.keep(8, range(4))))
    assert model.down.weight.shape == (6, 4)
