"""Forwards that depend on a size: the proof finds them, and the model is as it was."""

import copy

import pytest
import torch
from messages.shrinking import CANNOT_FOLLOW
from torch import nn

from tersely.errors import SessionError
from tersely.shrinking.shrink import shrink_module

IMAGE = (torch.randn(2, 3, 5, 5, generator=torch.Generator().manual_seed(0)),)


class Trap(nn.Module):
    def __init__(self, step):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 4, 1)
        self.step, self.width = step, 16

    def forward(self, x):
        return self.second(self.step(self, self.first(x).relu()))


def writes_a_channel(model, x):
    x[:, 3] = 1
    return x


def divides_by_the_width(model, x):
    return x / x.shape[1] ** 0.5


def branches_on_the_width(model, x):
    return x * 2 if x.shape[1] > 12 else x


def checks_the_width(model, x):
    if x.shape[1] != 16:
        raise ValueError(f"expected 16 channels, got {x.shape[1]}")
    return x


def picks_channels(model, x):
    return torch.cat([x[:, :8] * 2, x[:, 8:]], 1)


@pytest.mark.parametrize(
    "step",
    [
        writes_a_channel,
        divides_by_the_width,
        branches_on_the_width,
        checks_the_width,
        picks_channels,
    ],
)
def test_a_forward_that_depends_on_the_width_never_gives_other_outputs(help, step):
    model = Trap(step)
    before = copy.deepcopy(model.state_dict())
    found = help.shrink(model, IMAGE, help.rows(model, ["first"], help.keep(16, range(2, 9))))
    if not found.cuts:
        assert found.stays
        torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
        assert model.first.out_channels == 16


def test_the_reason_names_the_operator_that_depends_on_the_width(help):
    model = Trap(divides_by_the_width)
    found = help.shrink(model, IMAGE, help.rows(model, ["first"], help.keep(16, range(4))))
    assert found.cuts == {}
    assert "(div) depends on the size" in found.stays[0].reason


def test_sizes_that_forward_reads_from_an_attribute_are_written_there(help):
    def views(model, x):
        return x.view(x.shape[0], model.width, -1).unflatten(2, (5, 5))

    model = Trap(views)
    help.shrink(model, IMAGE, help.rows(model, ["first"], help.keep(16, range(4))))
    assert model.width == 4


def test_a_model_that_cannot_be_exported_is_refused():
    class Branching(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 4)

        def forward(self, x):
            return self.layer(x) if x.sum() > 0 else self.layer(-x)

    kept = {"layer.weight": torch.zeros(4, 3, dtype=torch.bool)}
    with pytest.raises(SessionError, match=CANNOT_FOLLOW):
        shrink_module(Branching(), (torch.randn(2, 3),), {}, kept)


@pytest.mark.parametrize("seed", range(6))
def test_random_zeros_never_give_other_outputs(help, seed):
    generator = torch.Generator().manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, groups=2),
        nn.Sigmoid(),
        nn.Conv2d(8, 6, 1),
        nn.Flatten(),
        nn.Linear(54, 5),
        nn.Tanh(),
        nn.Linear(5, 2),
    )
    kept = {}
    for index in (0, 1, 3, 5, 7):
        module = model[index]
        rows = torch.rand(module.weight.shape[0], generator=generator) > 0.4
        shape = [-1, *(1,) * (module.weight.ndim - 1)]
        kept[f"{index}.weight"] = rows.view(shape).expand(module.weight.shape)
        if torch.rand((), generator=generator) > 0.5:
            kept[f"{index}.bias"] = rows
    help.shrink(help.lived_in(model), IMAGE, kept)
