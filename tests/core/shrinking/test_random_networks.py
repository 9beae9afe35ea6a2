"""Random networks with random masks: smaller with equal outputs, or as they were, with reasons."""

import copy

import pytest
import torch

from tersely.shrinking.shrink import shrink_module


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(60))
def test_a_random_network_never_gives_other_outputs(help, random_networks, seed):
    torch.manual_seed(seed)
    model = help.lived_in(random_networks.Network(seed))
    inputs = torch.randn(2, 3, 4, 4)
    kept = random_networks.random_masks(model, seed)
    masked, before = random_networks.masked_copy(model, kept), copy.deepcopy(model.state_dict())

    found = shrink_module(model, (inputs,), {}, kept)

    if not found.cuts:
        torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
        return
    left = {name: found.cuts.get(name, lambda mask: mask)(mask) for name, mask in kept.items()}
    small = random_networks.masked_copy(model, left)
    # A bias that takes constants over holds them in single precision.
    tolerance = 1e-6 if found.absorbed else 1e-10
    with torch.no_grad():
        actual, expected = small(inputs.double()), masked(inputs.double())
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance, equal_nan=True)
