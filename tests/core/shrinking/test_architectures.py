"""Blocks of well-known networks, small: what is masked goes, outputs stay equal (float64)."""

import torch
from torch import nn
from torch.nn import functional

IMAGE = (torch.randn(2, 3, 9, 11, generator=torch.Generator().manual_seed(0)),)


class ConvNeXt(nn.Module):
    """Depthwise 7x7, layer norm over channels, two linear layers, layer scale (Liu et al.)."""

    def __init__(self, width=12):
        super().__init__()
        self.stem = nn.Conv2d(3, width, 2, 2)
        self.depth = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width)
        self.widen, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.scale = nn.Parameter(torch.rand(width) + 0.1)
        self.head = nn.Linear(width, 5)

    def forward(self, x):
        x = self.stem(x)
        inner = self.norm(self.depth(x).permute(0, 2, 3, 1))
        inner = self.scale * self.narrow(functional.gelu(self.widen(inner)))
        x = x + inner.permute(0, 3, 1, 2)
        return self.head(x.mean((2, 3)))


def test_the_hidden_units_of_a_convnext_block_go(help):
    model = ConvNeXt()
    help.shrink(model, IMAGE, help.rows(model, ["widen"], help.half(48)))
    assert model.widen.weight.shape == (24, 12)
    assert model.narrow.weight.shape == (12, 24)


def test_channels_that_a_layer_norm_reads_stay(help):
    model = ConvNeXt()
    kept = help.rows(model, ["stem", "depth", "narrow"], help.half(12))
    found = help.shrink(model, IMAGE, kept)
    assert found.cuts == {}
    assert {stay.target for stay in found.stays} >= {"stem.weight", "narrow.weight"}


class Inception(nn.Module):
    """Four branches of different depth whose channels are concatenated (Szegedy et al.)."""

    def __init__(self):
        super().__init__()
        self.one = nn.Conv2d(3, 8, 1)
        self.three_in, self.three = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 10, 3, padding=1)
        self.five_in, self.five = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 6, (1, 5), padding=(0, 2))
        self.pooled, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(28)
        self.head = nn.Conv2d(28, 5, 3)

    def forward(self, x):
        branches = [
            self.one(x),
            self.three(self.three_in(x).relu()),
            self.five(self.five_in(x).relu()),
            self.pooled(functional.avg_pool2d(x, 3, 1, 1)),
        ]
        return self.head(self.norm(torch.cat(branches, 1)).relu())


def test_every_branch_of_an_inception_block_loses_its_own_channels(help):
    model = help.lived_in(Inception())
    widths = {"one": 8, "three": 10, "five": 6, "pooled": 4}
    parts = {name: help.half(width) for name, width in widths.items()}
    kept = help.rows(model, ["norm"], torch.cat(list(parts.values())))
    for name, part in parts.items():
        kept |= help.rows(model, [name], part)
    kept |= help.rows(model, ["three_in"], help.half(6)) | help.rows(
        model, ["five_in"], help.half(4)
    )
    help.shrink(model, IMAGE, kept)
    assert model.head.weight.shape == (5, 14, 3, 3)
    assert model.three.weight.shape == (5, 3, 3, 3)
    assert model.norm.num_features == 14


class Efficient(nn.Module):
    """An inverted residual with SiLU, squeeze-excite by sigmoid and a way around (Tan and Le)."""

    def __init__(self):
        super().__init__()
        self.stem, self.stem_norm = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.expand, self.expand_norm = nn.Conv2d(8, 24, 1, bias=False), nn.BatchNorm2d(24)
        self.depth = nn.Conv2d(24, 24, 5, padding=2, groups=24, bias=False)
        self.depth_norm = nn.BatchNorm2d(24)
        self.squeeze, self.excite = nn.Conv2d(24, 6, 1), nn.Conv2d(6, 24, 1)
        self.project, self.project_norm = nn.Conv2d(24, 8, 1, bias=False), nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        x = functional.silu(self.stem_norm(self.stem(x)))
        inner = functional.silu(self.expand_norm(self.expand(x)))
        inner = functional.silu(self.depth_norm(self.depth(inner)))
        scale = functional.silu(self.squeeze(inner.mean((2, 3), keepdim=True)))
        inner = self.project_norm(self.project(inner * self.excite(scale).sigmoid()))
        return self.head((x + inner).mean((2, 3)))


def test_an_efficientnet_block_loses_channels_inside_and_around(help):
    model = help.lived_in(Efficient())
    kept = help.rows(model, ["expand", "expand_norm", "depth", "depth_norm"], help.half(24))
    kept |= help.rows(model, ["squeeze"], help.half(6))
    around = ["stem", "stem_norm", "project", "project_norm"]
    kept |= help.rows(model, around, help.half(8, seed=1))
    help.shrink(model, IMAGE, kept)
    assert model.depth.weight.shape == (12, 1, 5, 5)
    assert model.excite.weight.shape == (12, 3, 1, 1)
    assert model.project.weight.shape == (4, 12, 1, 1)
    assert model.head.weight.shape == (4, 4)


class VisionTransformer(nn.Module):
    """Patches, a class token, positions, attention over separate projections (Dosovitskiy)."""

    def __init__(self, width=20, heads=4):
        super().__init__()
        self.patches = nn.Conv2d(3, width, 3, 3)
        self.token = nn.Parameter(torch.randn(1, 1, width))
        self.positions = nn.Parameter(torch.randn(1, 10, width))
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.out, self.norm_1 = nn.Linear(width, width), nn.LayerNorm(width)
        self.widen, self.narrow = nn.Linear(width, 44), nn.Linear(44, width)
        self.norm_2, self.head = nn.LayerNorm(width), nn.Linear(width, 6)
        self.size = width // heads

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.positions
        inner = self.norm_1(x)
        heads = [
            one(inner).view(*x.shape[:2], -1, self.size).transpose(1, 2)
            for one in (self.query, self.key, self.value)
        ]
        mixed = functional.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)
        x = x + self.out(mixed)
        x = x + self.narrow(functional.gelu(self.widen(self.norm_2(x))))
        return self.head(x[:, 0])


def test_heads_and_hidden_units_of_a_vision_transformer_go(help):
    model = VisionTransformer()
    heads = help.keep(4, [0, 1, 3]).repeat_interleave(5)
    kept = help.rows(model, ["query", "key", "value"], heads)
    kept |= help.rows(model, ["widen"], help.half(44))
    help.shrink(model, (IMAGE[0][:, :, :, :9],), kept)
    assert model.query.weight.shape == (15, 20)
    assert model.out.weight.shape == (20, 15)
    assert model.narrow.weight.shape == (20, 22)


class CroppedUNet(nn.Module):
    """A U-Net without padding, whose skip is cut to the size of what comes up (Ronneberger)."""

    def __init__(self):
        super().__init__()
        self.down, self.deep = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 12, 3, padding=1)
        self.up, self.merge = nn.ConvTranspose2d(12, 8, 2, 2), nn.Conv2d(16, 6, 1)
        self.head = nn.Conv2d(6, 2, 1)

    def forward(self, x):
        skip = self.down(x).relu()
        up = self.up(self.deep(functional.max_pool2d(skip, 2)).relu())
        skip = skip[:, :, : up.shape[2], : up.shape[3]]
        return self.head(self.merge(torch.cat([skip, up], 1)).relu())


def test_a_skip_that_is_cut_to_size_loses_its_channels(help):
    model = CroppedUNet()
    kept = help.rows(model, ["down", "up"], help.half(8))
    kept |= help.rows(model, ["deep"], help.half(12)) | help.rows(model, ["merge"], help.half(6))
    help.shrink(model, IMAGE, kept)
    assert model.merge.weight.shape == (3, 8, 1, 1)
    assert model.up.weight.shape == (6, 4, 2, 2)
