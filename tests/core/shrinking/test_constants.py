"""Constants that readers' biases take over, and those that they cannot."""

import copy

import pytest
import torch
from messages.shrinking import ONE_STAYS, PADDED_CONSTANT, PRUNE_WITH_NORM
from torch import nn

from tersely.shrinking.report import Absorption
from tersely.shrinking.shrink import shrink_module


class Chain(nn.Module):
    def __init__(self, *middle, padding=0, bias=True, size=3):
        super().__init__()
        self.first, self.middle = nn.Conv2d(2, 4, 1), nn.Sequential(*middle)
        self.second = nn.Conv2d(4, 3, size, padding=padding, bias=bias)

    def forward(self, x):
        return self.second(self.middle(self.first(x)))


IMAGE = (torch.randn(2, 2, 5, 5, generator=torch.Generator().manual_seed(0)),)


def masked(help, model):
    return help.rows(model, ["first"], help.keep(4, [0, 3]))


def test_sigmoid_of_zero_is_taken_over_in_both_modes(help):
    model = Chain(nn.Sigmoid())
    weight, bias = model.second.weight.detach().clone(), model.second.bias.detach().clone()
    found = help.shrink(model, IMAGE, masked(help, model))
    assert found.absorbed == (Absorption("second.bias", 2, "both"),)
    expected = bias + 0.5 * weight[:, 1:3].sum((1, 2, 3))
    torch.testing.assert_close(model.second.bias.detach(), expected)


def test_what_an_unmasked_batch_norm_adds_is_taken_over_in_evaluation(help):
    model = help.lived_in(Chain(nn.BatchNorm2d(4), nn.ReLU()))
    model.middle[0].bias.data.fill_(1.0)
    found = help.shrink(model, IMAGE, masked(help, model))
    assert found.absorbed == (Absorption("second.bias", 2, "evaluation"),)
    assert model.second.weight.shape == (3, 2, 3, 3)


@pytest.mark.parametrize("is_masked", [False, True])
def test_what_is_zero_in_evaluation_alone_is_said(help, is_masked):
    model = help.lived_in(Chain(nn.BatchNorm2d(4), nn.ReLU(), bias=False))
    model.middle[0].bias.data.fill_(1.0)
    model.middle[0].running_mean.fill_(10.0)  # 1 - 10 w / s, below zero
    layers = ["first", "middle.0"] if is_masked else ["first"]

    found = help.shrink(model, IMAGE, help.rows(model, layers, help.keep(4, [0, 3])))

    assert model.second.weight.shape == (3, 2, 3, 3)
    assert found.absorbed == ()
    assert found.other_in_training == (() if is_masked else ("second",))


def test_a_bias_that_stays_is_a_constant_that_is_taken_over(help):
    model = Chain()
    kept = masked(help, model)
    del kept["first.bias"]
    found = help.shrink(model, IMAGE, kept)
    assert found.absorbed == (Absorption("second.bias", 2, "both"),)


def test_a_padded_border_keeps_a_constant(help):
    model = Chain(nn.Sigmoid(), padding=1)
    found = help.shrink(model, IMAGE, masked(help, model))
    assert found.cuts == {}
    assert found.stays[0].reason == f"second {PADDED_CONSTANT} (conv2d of second)"


def test_a_reader_without_a_bias_keeps_a_constant(help):
    model = Chain(nn.Sigmoid(), bias=False)
    found = help.shrink(model, IMAGE, masked(help, model))
    assert found.cuts == {}
    assert "has no bias to take it over" in found.stays[0].reason


def test_zero_passes_a_padded_border(help):
    model = Chain(nn.ReLU(), padding=1)
    found = help.shrink(model, IMAGE, masked(help, model))
    assert found.absorbed == ()
    assert model.second.in_channels == 2


def test_columns_that_are_masked_take_their_channel_along(help):
    model = Chain(nn.ReLU())
    kept = torch.ones(3, 4, 3, 3, dtype=torch.bool)
    kept[:, 2] = False
    help.shrink(model, IMAGE, {"second.weight": kept})
    assert model.first.out_channels == 3


def test_one_channel_of_a_layer_that_is_masked_whole_stays(help):
    model = Chain(nn.ReLU())
    found = help.shrink(model, IMAGE, help.rows(model, ["first"], help.keep(4, [])))
    assert model.first.out_channels == 1
    assert found.stays[0].reason == f"{ONE_STAYS} first.weight"


def test_round_to_keeps_a_multiple(help):
    model = Chain(nn.ReLU())
    model.first.weight.data[1].mul_(10)
    found = help.shrink(model, IMAGE, help.rows(model, ["first"], help.keep(4, [0])), round_to=2)
    assert model.first.out_channels == 2
    assert found.stays[0].reason == "round_to=2 keeps it for first.weight"


def test_a_bias_that_is_masked_takes_nothing_over(help):
    model = Chain(nn.Sigmoid())
    kept = masked(help, model) | {"second.bias": help.keep(3, [0, 2])}
    found = help.shrink(model, IMAGE, kept)
    assert found.cuts == {}
    assert "its masked bias cannot take over" in found.stays[0].reason


def test_what_is_held_keeps_its_shape(help):
    model = Chain(nn.ReLU())
    found = help.shrink(
        model,
        IMAGE,
        masked(help, model),
        fixed={("middle", "output"): "middle._output_ is compared"},
    )
    assert found.cuts == {}
    assert found.stays[0].reason == "middle._output_ is compared"


def test_an_approximation_takes_a_padded_border_over_and_states_its_error(help):
    model = Chain(nn.Sigmoid(), padding=1)
    dense = shrink_module(copy.deepcopy(model), IMAGE, {}, masked(help, model))
    assert dense.cuts == {}
    found = shrink_module(model, IMAGE, {}, masked(help, model), approximate=True)
    assert model.second.in_channels == 2
    assert found.absorbed == (Absorption("second.bias", 2, "both"),)
    assert found.error > 1e-3


APPROXIMATED = {
    "a padded convolution": lambda: Chain(nn.Sigmoid(), padding=1),
    "a reader without a bias": lambda: Chain(nn.Sigmoid(), bias=False),
    "a padded depthwise convolution": lambda: Chain(
        nn.Sigmoid(), nn.Conv2d(4, 4, 3, padding=1, groups=4, bias=False)
    ),
    "a padded grouped convolution": lambda: Chain(
        nn.Sigmoid(), nn.Conv2d(4, 4, 3, padding=1, groups=2)
    ),
    "a transposed convolution": lambda: Chain(nn.Sigmoid(), nn.ConvTranspose2d(4, 4, 3)),
    "a product of weights of one's own": lambda: Chain(nn.Sigmoid(), Mix()),
}


class Mix(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 4))

    def forward(self, x):
        return torch.einsum("nchw,cd->ndhw", x, self.weight)


@pytest.mark.parametrize("name", APPROXIMATED)
def test_an_approximation_states_how_much_an_output_differs(help, name):
    torch.manual_seed(0)
    model = APPROXIMATED[name]()
    kept = masked(help, model)
    expected = copy.deepcopy(model)
    for key, mask in kept.items():
        expected.get_parameter(key).data.mul_(mask)
    assert "first.weight" not in shrink_module(copy.deepcopy(model), IMAGE, {}, kept).cuts
    found = shrink_module(model, IMAGE, {}, kept, approximate=True)
    assert model.first.out_channels == 2
    with torch.no_grad():
        difference = (model(*IMAGE) - expected(*IMAGE)).abs().max()
        size = expected(*IMAGE).abs().max().clamp_min(1.0)
    assert 1e-4 < difference / size <= found.error * 1.001


def test_a_reason_comes_with_what_frees_it(help):
    model = Chain(nn.Sigmoid(), padding=1)
    found = help.shrink(model, IMAGE, masked(help, model))
    assert found.stays[0].hint == (PRUNE_WITH_NORM)


class Twice(nn.Module):
    """Reads a constant and, in another call with the same bias, something else."""

    def __init__(self, second):
        super().__init__()
        self.first, self.shared = nn.Linear(4, 8), nn.Linear(8, 8)
        self.other, self.head = nn.Linear(8, 8, bias=False), nn.Linear(8, 2)
        self.second = second

    def forward(self, x):
        x = self.first(x).exp()
        return self.head(self.second(self, x, self.shared(x)))


@pytest.mark.parametrize(
    ("second", "reason"),
    [
        (lambda m, x, y: m.shared(x - 1) + y, "the calls that use shared.bias read different"),
        (lambda m, x, y: m.shared(torch.zeros_like(x)) + y, "the calls that use shared.bias read"),
        (
            lambda m, x, y: nn.functional.linear(x - 1, m.other.weight, m.shared.bias) + y,
            "shared.bias is the bias of several readers",
        ),
        (lambda m, x, y: y * m.shared.bias, "shared.bias is read as something else too"),
    ],
)
def test_a_bias_that_is_added_elsewhere_takes_no_constant_over(help, second, reason):
    torch.manual_seed(0)
    model = Twice(second)
    found = help.shrink(model, (torch.randn(3, 4),), help.rows(model, ["first"], help.half(8)))
    assert found.cuts == {}
    assert any(reason in stay.reason for stay in found.stays)
