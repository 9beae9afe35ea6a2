"""Which modules are tied: additions, gates, concatenations, depthwise and shared modules."""

import pytest
import torch
from torch import nn
from torch.nn import functional


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 1)
        self.norm = nn.BatchNorm2d(8)
        self.inner = nn.Conv2d(8, 6, 1)
        self.outer = nn.Conv2d(6, 8, 1)
        self.head = nn.Linear(8, 2)

    def forward(self, x):
        x = self.norm(self.stem(x)).relu()
        x = x + self.outer(self.inner(x).relu())
        return self.head(x.mean((2, 3)))


class Concatenated(nn.Module):
    """cat(a, b) + cat(c, d), and e reads the sum."""

    def __init__(self, *sizes, last=False):
        super().__init__()
        width, self.dim = (6, -1) if last else (3, 1)

        def layer(inputs, outputs):
            return nn.Linear(inputs, outputs) if last else nn.Conv2d(inputs, outputs, 1)

        for name, size in zip("abcd", sizes, strict=False):
            self.add_module(name, layer(width, size))
        self.e = layer(sum(sizes[:2]), 4)

    def forward(self, x):
        left = torch.cat([self.a(x), self.b(x)], self.dim)
        if not hasattr(self, "c"):
            return self.e(left)
        if not hasattr(self, "d"):
            return self.e(left + self.c(x))
        return self.e(left + torch.cat([self.c(x), self.d(x)], self.dim))


class WithInput(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 8, 1), nn.Conv2d(3, 8, 1), nn.Conv2d(11, 2, 1)

    def forward(self, x):
        return self.c(torch.cat([x, self.a(x) + self.b(x)], 1))


class SqueezeExcite(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.out = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 5, 1)
        self.down, self.up = nn.Linear(8, 4), nn.Linear(4, 8)

    def forward(self, x):
        x = self.conv(x)
        gate = torch.sigmoid(self.up(self.down(x.mean((2, 3))).relu()))
        return self.out(x * gate[:, :, None, None])


class SpatialGate(nn.Module):
    """One channel of gate for all channels."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 1), nn.Conv2d(3, 8, 1)
        self.gate, self.out = nn.Conv2d(2, 1, 3, padding=1), nn.Conv2d(8, 4, 1)

    def forward(self, x):
        x = self.a(x) + self.b(x)
        seen = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)
        return self.out(x * torch.sigmoid(self.gate(seen)))


class GatedLinear(nn.Module):
    def __init__(self):
        super().__init__()
        self.gate, self.up, self.down = nn.Linear(6, 10), nn.Linear(6, 10), nn.Linear(10, 6)

    def forward(self, x):
        return self.down(functional.silu(self.gate(x)) * self.up(x))


class Inverted(nn.Module):
    """The block of MobileNetV2."""

    def __init__(self):
        super().__init__()
        self.stem, self.expand = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 16, 1)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.project = nn.Conv2d(16, 8, 1)

    def forward(self, x):
        x = self.stem(x)
        return x + self.project(functional.relu6(self.depthwise(functional.relu6(self.expand(x)))))


class ChannelsLast(nn.Module):
    """The block of ConvNeXt: a depthwise convolution, then linear layers on turned tensors."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 2, 2)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.norm = nn.LayerNorm(8)
        self.up, self.down = nn.Linear(8, 32), nn.Linear(32, 8)
        self.scale = nn.Parameter(torch.ones(8))

    def forward(self, x):
        x = self.stem(x)
        inner = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        return x + (self.scale * self.down(self.up(inner).relu())).permute(0, 3, 1, 2)


class Shared(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.again, self.head = (
            nn.Conv2d(3, 8, 1),
            nn.Conv2d(8, 8, 1),
            nn.Conv2d(8, 2, 1),
        )

    def forward(self, x):
        return self.head(self.again(self.again(self.stem(x)).relu()))


class TiedWeights(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 8), nn.Linear(6, 8), nn.Linear(6, 8)
        self.b.weight = self.a.weight
        self.left, self.right = nn.Linear(8, 2), nn.Linear(8, 3)

    def forward(self, x):
        return self.left(self.a(x)), self.right(self.b(x) + self.c(x))


class Language(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.layer = nn.Embedding(11, 8), nn.Linear(8, 8)
        self.logits = nn.Linear(8, 11, bias=False)
        self.logits.weight = self.words.weight

    def forward(self, x):
        x = self.words(x)
        return self.logits(x + self.layer(x))


class Unet(nn.Module):
    def __init__(self):
        super().__init__()
        self.left, self.bottom = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 16, 1)
        self.up, self.right = nn.ConvTranspose2d(16, 8, 2, 2), nn.Conv2d(16, 2, 1)

    def forward(self, x):
        left = self.left(x)
        return self.right(
            torch.cat([self.up(self.bottom(functional.max_pool2d(left, 2))), left], 1)
        )


class Flattened(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.head = nn.Conv2d(3, 8, 1), nn.Conv2d(3, 8, 1), nn.Linear(512, 2)

    def forward(self, x):
        return self.head((self.a(x) + self.b(x)).flatten(1))


def test_the_terms_of_a_residual_addition_are_tied(tied, image):
    assert tied(Residual(), image) == (
        [["stem", "outer"]],
        {},
    )


def test_a_stream_may_begin_with_the_input(tied, tokens):
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.up, self.down = nn.LayerNorm(6), nn.Linear(6, 12), nn.Linear(12, 6)

        def forward(self, x):
            return x + self.down(self.up(self.norm(x)).relu())

    assert tied(nn.Sequential(Block(), Block()), tokens) == ([["0.down", "1.down"]], {})


def test_a_norm_is_tied_to_what_it_normalizes_when_it_is_pruned_itself(tied, image):
    groups, _ = tied(Residual(), image, types=("Conv2d", "BatchNorm2d"))

    assert groups == [["stem", "norm", "outer"]]


def test_a_tie_goes_through_modules_that_are_not_selected(tied, image):
    class Three(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.c, self.e = nn.Conv2d(3, 8, 1), nn.Conv2d(3, 8, 1), nn.Conv2d(8, 2, 1)
            self.b = nn.ConvTranspose2d(3, 8, 1)

        def forward(self, x):
            return self.e(self.a(x) + self.b(x) + self.c(x))

    assert tied(Three(), image, types=("Conv2d",)) == ([["a", "c"]], {})


@pytest.mark.parametrize("last", [False, True])
def test_parts_of_a_concatenation_are_not_tied(tied, image, tokens, last):
    assert tied(Concatenated(8, 12, last=last), tokens if last else image) == ([], {})


@pytest.mark.parametrize("last", [False, True])
def test_parts_of_added_concatenations_are_tied_in_pairs(tied, image, tokens, last):
    model = Concatenated(8, 6, 8, 6, last=last)

    assert tied(model, tokens if last else image) == ([["a", "c"], ["b", "d"]], {})


def test_a_concatenation_with_the_input_counts_its_channels(tied, image):
    assert tied(WithInput(), image) == ([["a", "b"]], {})


def test_a_gate_is_tied_to_what_it_multiplies(tied, image, tokens):
    assert tied(SqueezeExcite(), image) == ([["conv", "up"]], {})
    assert tied(GatedLinear(), tokens) == ([["gate", "up"]], {})


def test_a_gate_of_one_channel_is_tied_to_nothing(tied, image):
    assert tied(SpatialGate(), image) == ([["a", "b"]], {})


def test_a_depthwise_convolution_is_tied_to_its_input(tied, image):
    assert tied(Inverted(), image) == ([["expand", "depthwise"], ["stem", "project"]], {})


def test_channels_are_followed_when_dimensions_are_turned(tied, image):
    groups, runs = tied(ChannelsLast(), image, types=("Conv2d", "Linear", "LayerNorm"))

    assert (groups, runs) == ([["stem", "depthwise", "norm", "down"]], {})


def test_a_shared_module_is_tied_to_its_own_input(tied, image):
    assert tied(Shared(), image) == ([["stem", "again"]], {})


def test_modules_with_one_weight_are_one_member(tied, tokens):
    assert tied(TiedWeights(), tokens) == ([["a", "c"]], {})


def test_an_embedding_is_tied_to_the_stream_it_starts(tied):
    assert tied(Language(), torch.tensor([[1, 2, 3]])) == ([["words", "layer"]], {})


def test_a_skip_connection_by_concatenation_ties_nothing(tied, image):
    assert tied(Unet(), image) == ([], {})


def test_channels_are_followed_into_a_flattened_tensor(tied, image):
    assert tied(Flattened(), image) == ([["a", "b"]], {})


@pytest.mark.parametrize("wrap", [lambda x: (x,), lambda x: [x], lambda x: {"x": x}])
def test_inputs_may_be_arguments_or_keywords(tied, image, wrap):
    assert tied(Residual(), wrap(image))[0] == [["stem", "outer"]]


def test_frozen_parameters_are_followed_too(tied, image):
    assert tied(Residual().requires_grad_(False), image)[0] == [["stem", "outer"]]


def test_a_model_on_the_meta_device_is_followed_too(tied):
    with torch.device("meta"):
        model, inputs = Residual(), torch.empty(2, 3, 8, 8)

    assert tied(model, inputs)[0] == [["stem", "outer"]]


class Outputs(nn.Module):
    """Two layers that only the model's output puts together."""

    def __init__(self, way, first=6, second=6):
        super().__init__()
        self.way = way
        self.stem, self.a, self.b = (
            nn.Conv2d(3, 8, 1),
            nn.Conv2d(8, first, 1),
            nn.Conv2d(8, second, 1),
        )

    def forward(self, x):
        x = self.stem(x).relu()
        return self.way(self.a(x), self.b(x))


@pytest.mark.parametrize(
    "way",
    [
        lambda a, b: torch.cat([a, b], 1),
        lambda a, b: torch.cat([a, b], 1).sigmoid(),
        lambda a, b: torch.cat([a, b], 2),
        lambda a, b: torch.stack([a, b], 1),
        lambda a, b: {"a": a, "both": torch.stack([a, b]).permute(1, 0, 2, 3, 4)},
    ],
)
def test_what_only_the_output_puts_beside_each_other_is_not_tied(tied, image, way):
    assert tied(Outputs(way), image) == ([], {})


def test_that_holds_for_unequal_widths(tied, image):
    assert tied(Outputs(lambda a, b: torch.cat([a, b], 1), 5, 4), image) == ([], {})


@pytest.mark.parametrize("way", [torch.add, lambda a, b: torch.stack([a, b], 1).mean(1)])
def test_what_meets_in_the_output_is_tied(tied, image, way):
    assert tied(Outputs(way), image) == ([["a", "b"]], {})


class Patches(nn.Module):
    """A class token before patches, learned positions, and a residual layer."""

    def __init__(self):
        super().__init__()
        self.patches, self.down = nn.Conv2d(3, 8, 4, 4), nn.Linear(8, 8)
        self.token = nn.Parameter(torch.zeros(1, 1, 8))
        self.positions = nn.Parameter(torch.zeros(1, 5, 8))

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.positions
        return x + self.down(x)


def test_a_class_token_and_positions_have_the_channels_of_the_patches(tied, image):
    assert tied(Patches(), image) == ([["patches", "down"]], {})
