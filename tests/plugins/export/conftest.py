"""What the tests of formats share: small networks, and sessions in force on them."""

import pytest
import torch
from torch import nn

import tersely


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture
def quantized():
    """Call with a model, a batch and an entry; returns the session whose scales are in force."""

    def make(model, batch, *, algorithm="ptq", **entry):
        entry.setdefault("op_types", ["Linear"])
        document = {"quantization": {"algorithm": algorithm, "config_list": [entry]}}
        session = tersely.attach(model.eval(), document)
        session.calibrate([batch])
        session.compress()
        return session

    return make


@pytest.fixture
def layers():
    """Two linear layers of a size that blocks of 16 and 32 divide."""
    return nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 32))
