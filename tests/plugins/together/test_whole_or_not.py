"""What fails in one method is taken back in all; what is loaded moves on from its own moments."""

import pytest
import torch
from torch import nn

import tersely

WEIGHTS = {"op_types": ["Linear"], "target_names": ["weight"]}
INPUTS = {"op_types": ["Linear"], "target_names": ["_input_", "weight"]}
PRUNE_AND_FOLLOW = {
    "pruning": {
        "algorithm": "l1_norm",
        "config_list": [{**WEIGHTS, "sparse_ratio": 0.5}],
        "schedule": {"name": "linear", "every": 1, "times": 4},
    },
    "quantization": {"algorithm": "qat", "config_list": [INPUTS]},
}
LEARNED = {
    "quantization": {
        "algorithm": "lsq_plus",
        "options": {"learning_rate": 0.01},
        "config_list": [{**INPUTS, "quant_dtype": "int4", "quant_scheme": "affine"}],
    }
}


def network():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(8, 16), nn.Linear(16, 4))


def batch(seed):
    return torch.rand(64, 8, generator=torch.Generator().manual_seed(seed))


def test_masks_that_were_due_are_taken_back_when_ranges_cannot_be_used():
    model = network()
    session = tersely.attach(model, PRUNE_AND_FOLLOW)
    session.calibrate([batch(0)])
    session.compress()
    model.train()(batch(1))
    session.step()
    before = session.masks()
    model.train()(batch(2))
    for name, buffer in model.named_buffers():
        if name.endswith("_low"):
            buffer.fill_(float("nan"))

    with pytest.raises(tersely.CalibrationError, match=r"0\.weight: 1 of its 1"):
        session.step()

    assert session.steps == 1
    assert all(
        torch.equal(mask, before[module][target])
        for module, masks in session.masks().items()
        for target, mask in masks.items()
    )


def steps(model, session, seeds):
    """Train what is learned; the weights stay."""
    for seed in seeds:
        model.train()(batch(seed)).square().mean().backward()
        session.step()
        model.zero_grad()


@pytest.mark.parametrize("order", [sorted, lambda names: sorted(names, reverse=True)])
def test_learned_scales_move_on_from_their_own_moments_in_whatever_order_they_are_read(order):
    model = network()
    session = tersely.attach(model, LEARNED)
    session.calibrate([batch(0)])
    session.compress()
    steps(model, session, range(5))
    tensors, data = session.state()
    steps(model, session, range(5, 10))
    again = network()
    resumed = tersely.attach(again, LEARNED)

    resumed.restore({name: tensors[name] for name in order(tensors)}, data)
    steps(again, resumed, range(5, 10))

    assert torch.equal(again.eval()(batch(0)), model.eval()(batch(0)))
