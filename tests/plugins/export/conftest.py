"""What the tests of formats share: small networks, and sessions in force on them."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import tersely


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture
def other_grids(monkeypatch):
    """Register the toys ``between`` (float zero points), ``quantiles`` (levels), ``largest``."""
    path = Path(__file__).with_name("other_grids.py")
    spec = importlib.util.spec_from_file_location("other_grids", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setitem(sys.modules, "other_grids", module)
    name = tersely.registry().register(module.Face(), name="other-grids")
    yield
    tersely.registry().unregister(name)


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
