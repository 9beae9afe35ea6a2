"""Integers and booleans that a model returns are compared where no two values tie."""

import pytest
import torch
from torch import nn

from tersely.errors import SessionError
from tersely.shrinking import shrink as shrinking
from tersely.shrinking.proving.outputs import Discrete, outputs_in_float64
from tersely.shrinking.shrink import shrink_module

X = torch.randn(16, 6, generator=torch.Generator().manual_seed(0))


class Choices(nn.Module):
    """The place of the largest value, whether it is positive, and a comparison of equals."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.up, self.last = nn.Linear(6, 8), nn.Linear(8, 5)

    def forward(self, x):
        scores = self.last(self.up(x).relu())
        return (
            scores.argmax(1),
            scores.amax(1) > 0,
            x.sum(1) - x.sum(1) >= x.flip(1).sum(1) - x.sum(1),
        )


def kept():
    rows = torch.arange(8) % 2 == 0
    return {"up.weight": rows[:, None].expand(8, 6), "up.bias": rows}


def test_a_model_that_returns_choices_alone_shrinks():
    model = Choices()
    found = shrink_module(model, (X,), {}, kept())
    assert found.stays == ()
    assert model.up.out_features == 4


def test_a_choice_that_the_small_model_makes_otherwise_is_an_error(monkeypatch):
    model = Choices()

    def swapped(*args, **kwargs):  # rows of the last layer change places after the cut
        result = cut(*args, **kwargs)
        args[0]["last.weight"].data = args[0]["last.weight"].data.flip(0)
        return result

    cut = shrinking.cut_tensors
    monkeypatch.setattr(shrinking, "cut_tensors", swapped)
    with pytest.raises(
        SessionError, match=r"and in \d+ integers or booleans, so nothing was removed"
    ):
        shrink_module(model, (X,), {}, kept())
    assert model.up.weight.shape == (8, 6)


def test_values_that_tie_are_not_steady():
    floats, [[chosen, positive, tied]] = outputs_in_float64(Choices(), {}, [((X,), {})])
    assert floats == [[]]
    assert bool(chosen.is_steady.all())
    assert bool(positive.is_steady.all())
    assert not bool(tied.is_steady.all())


def test_differences_count_where_values_are_steady():
    ours = Discrete(torch.tensor([1, 2, 3]), torch.tensor([True, True, False]))
    theirs = Discrete(torch.tensor([1, 0, 0]), torch.tensor([True, True, True]))
    assert ours.count_differences(theirs) == 1
    assert ours.count_differences(Discrete(torch.tensor([1]), torch.tensor([True]))) == 3
