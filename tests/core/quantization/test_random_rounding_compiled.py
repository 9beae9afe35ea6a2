"""Rounding at random in a compiled model that has no scale yet."""

import pytest
import torch
from torch import nn

import tersely
from tersely.contracts import RoundsAtRandom


class Random(RoundsAtRandom):
    """Adds half a step at random before it rounds to nearest."""

    def rounded(self, value, qparams, target, generator):
        noise = torch.rand(value.shape, generator=generator) - 0.5
        return tersely.fake_quantize(value + noise * qparams.scale, qparams)


class Face:
    @tersely.hookimpl
    def tersely_quantizers(self):
        return [tersely.QuantizerInfo(name="random", implementation=f"{__name__}:Random")]


@pytest.fixture(autouse=True)
def _registered():
    tersely.registry().register(Face(), name="rounding")
    yield
    tersely.registry().unregister("rounding")


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")  # of torch, at generators and graph breaks
def test_values_stay_as_they_are_until_there_is_a_scale():
    model, batch = nn.Sequential(nn.Linear(3, 2)), torch.randn(4, 3)
    expected = model(batch)
    entry = {"op_types": ["Linear"], "target_names": ["weight"]}
    stage = {"algorithm": "random", "config_list": [entry]}
    session = tersely.attach(model, {"quantization": stage})

    found = torch.compile(session.model, backend="eager")(batch)

    torch.testing.assert_close(found, expected)
