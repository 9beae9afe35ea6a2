"""Stages that quantize by plain steps start by the kinds of their targets: the same as by each."""

import pytest
import torch
from torch import nn

import tersely
from tersely.instrument.modules.classes import instruments_of

GROUPS = [
    {"op_types": ["Linear", "Conv1d"], "target_names": ["_input_", "weight"]},
    {"op_types": ["Conv1d"], "target_names": ["bias"], "quant_scheme": "affine"},
    {"op_names": ["0"], "target_names": ["_output_"], "apply_method": "bypass"},
]


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv1d(3, 4, 1), nn.Conv1d(4, 6, 1), nn.Linear(5, 5), nn.Linear(5, 2))


def start(attach, algorithm="toy_plain"):
    model = network()
    return model, attach(model, algorithm, GROUPS)


def chains(model):
    return [(instruments_of(one).parameters, instruments_of(one).inputs) for one in model]


@pytest.mark.parametrize("algorithm", ["toy_plain", "toy_range_channels"])
def test_a_start_by_kinds_is_a_start_by_targets(attach, algorithm, monkeypatch):
    model, session = start(attach, algorithm)
    monkeypatch.setattr("tersely.quantization.engine.start_plainly", lambda *_: False)
    other, by_targets = start(attach, algorithm)

    found, expected = model.state_dict(), other.state_dict()
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        assert (found[name].shape, found[name].dtype) == (tensor.shape, tensor.dtype)
    assert [str(one) for one in chains(model)] == [str(one) for one in chains(other)]

    value = torch.randn(2, 3, 5)
    for one in (session, by_targets):
        one.calibrate([value])
        one.compress()
    assert torch.equal(model(value), other(value))


def test_attaching_plain_steps_binds_no_target(attach):
    _, session = start(attach)
    assert "bound_targets" not in vars(session._context.binding)
    session.calibrate([torch.randn(2, 3, 5)])
    session.compress()
    assert len(session.qparams()) == 4


def test_a_tied_weight_starts_with_its_other_holder(attach):
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    model[1].weight = model[0].weight
    entry = {"op_names": ["0"], "target_names": ["weight"]}
    session = attach(model, "toy_plain", [entry])
    session.compress()
    assert torch.equal(model[1].weight, model[0].weight)
    assert not torch.equal(model[1].weight, model[1]._parameters["weight"])


def test_a_model_of_which_nothing_is_loaded_yet_starts_without_buffers(attach):
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(2, 2))
    session = attach(model, "toy_plain")
    assert [name for name, _ in model.named_buffers()] == []
    assert isinstance(session, tersely.Session)
