"""Ranges do not move where activation checkpointing runs a forward again (rule Q5.3)."""

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import tersely


def trained(entry, how):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)).train()
    recipe = {"quantization": {"algorithm": "qat", "config_list": [entry]}}
    session = tersely.attach(model, recipe)
    for seed in range(4):
        x = torch.randn(32, 8, generator=torch.Generator().manual_seed(seed), requires_grad=True)
        output = model(x) if how is None else checkpoint(model, x, use_reentrant=how)
        model.zero_grad()
        output.square().mean().backward()
        session.step()
    gradients = torch.cat([one.grad.flatten() for one in model.parameters()])
    return gradients, {name: found["_input_"].scale for name, found in session.qparams().items()}


@pytest.mark.parametrize("quant_dtype", ["int8", "int4"])
@pytest.mark.parametrize("how", [False, True])
def test_checkpointing_changes_neither_gradients_nor_ranges(quant_dtype, how):
    entry = {
        "op_types": ["Linear"],
        "target_names": ["_input_", "weight"],
        "quant_dtype": quant_dtype,
    }
    plain, ranges = trained(entry, None)
    recomputed, others = trained(entry, how)
    assert torch.equal(plain, recomputed)
    assert ranges == others
