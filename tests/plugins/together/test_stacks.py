"""Small targets alike have the masks that each would get alone, whatever their blocks are."""

import pytest
import torch
from torch import nn

import tersely

LIMITS = [
    {"sparse_ratio": 0.5, "granularity": [2, 2]},
    {"sparse_ratio": 0.5, "granularity": "out_channel"},
    {"granularity": "2:4"},
]
NAMES = [str(number) for number in range(6)]


def tied():
    """Layers of a few different magnitudes, so that many weights are tied."""
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(*(nn.Linear(8, 6, bias=False) for _ in NAMES))
    for layer in model:
        layer.weight.data = torch.randint(-3, 4, (6, 8), generator=generator).float() / 2
    return model


def masks_of(names, limits):
    entry = {"op_names": names, "target_names": ["weight"], **limits}
    return tersely.prune(tied(), [entry], algorithm="level").masks()


@pytest.mark.parametrize("limits", LIMITS, ids=str)
def test_targets_alike_get_the_masks_that_each_gets_alone(limits):
    together = masks_of(NAMES, limits)
    for name in NAMES:
        assert torch.equal(together[name]["weight"], masks_of([name], limits)[name]["weight"])
