"""Which other sizes an example is given, to see what forward takes from the size of its input."""

import pytest
import torch
from torch import nn

from tersely.shrinking.proving.sizes import of_another_size


class Words(nn.Module):
    """Tokens with learned positions, of which there are eight, and a mask."""

    def __init__(self):
        super().__init__()
        self.words, self.places = nn.Embedding(9, 4), nn.Embedding(8, 4)
        self.calls = 0

    def forward(self, words, mask):
        self.calls += 1
        x = self.words(words) + self.places(torch.arange(words.shape[1]))
        return x * mask[..., None]


def shapes_of(inputs):
    args, kwargs = inputs
    return [tuple(one.shape) for one in (*args, *kwargs.values())]


@pytest.mark.parametrize(
    ("model", "shape", "expected"),
    [
        (nn.Linear(8, 3), (2, 8), (5, 8)),
        (nn.Linear(8, 3), (2, 5, 8), (5, 11, 8)),
        (nn.Linear(8, 3), (8, 8), (17, 8)),
        (nn.Conv2d(3, 4, 3), (1, 3, 7, 6), (3, 3, 15, 13)),
        (nn.PixelUnshuffle(2), (2, 3, 4, 4), (5, 7, 8, 8)),
        (nn.Conv2d(3, 4, 3), (1, 3, 300, 300), (3, 3, 150, 150)),
    ],
)
def test_dimensions_take_other_sizes_where_the_model_does(model, shape, expected):
    found = of_another_size(model, ((torch.zeros(shape),), {}))

    assert shapes_of(found) == [expected]


def test_a_model_of_one_size_takes_no_other():
    model = nn.Sequential(nn.Flatten(0), nn.Linear(16, 2))

    assert of_another_size(model, ((torch.zeros(2, 8),), {})) is None


def test_tokens_and_their_mask_become_longer_as_far_as_there_are_positions():
    model = Words()
    words = torch.tensor([[1, 4, 2, 7, 8], [0, 3, 3, 5, 6]])

    found = of_another_size(model, ((words,), {"mask": torch.ones(2, 5)}))

    assert shapes_of(found) == [(5, 6), (5, 6)]
    assert found[0][0][3].tolist() == [0, 3, 3, 5, 6, 0]
    assert model.calls == 0
