"""Family periods: what is in force step by step, in a recipe whose stages come one by one."""

import copy
import re

import pytest
import torch
from torch import nn

import tersely


def layers(rows):
    """A module with one linear layer for each row of weights."""
    model = nn.Module()
    for name, values in rows.items():
        layer = nn.Linear(len(values), 1, bias=False)
        with torch.no_grad():
            layer.weight.copy_(torch.tensor([values]))
        model.add_module(name, layer)
    return model


def can_be_finished(session):
    twin = copy.deepcopy(session)
    if not session.waiting:
        twin.finalize()
        return True
    with pytest.raises(tersely.SessionError, match=re.escape(session.waiting[0])):
        twin.finalize()
    return False


def masked(session, layer):
    mask = session.masks().get(layer, {}).get("weight")
    return 0 if mask is None else int((~mask).sum())


def scale(session, layer):
    qparams = session.qparams().get(layer, {}).get("weight")
    return None if qparams is None else qparams.scale.item()


@pytest.mark.spec("periods")
def test_periods(case):
    given, expect = case["given"], case["expect"]
    teacher = layers(given["teacher"]) if "teacher" in given else None
    model = layers(given["weights"])
    session = tersely.attach(model, given["recipe"], teacher=teacher)
    session.compress()
    steps = max(
        len(one)
        for value in expect.values()
        for one in (value.values() if isinstance(value, dict) else [value])
    )
    states = []
    for step in range(steps):
        if step:
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.add_(given.get("added", 0))
            session.step()
        states.append(
            {
                "masked": {layer: masked(session, layer) for layer in given["weights"]},
                "scales": {layer: scale(session, layer) for layer in given["weights"]},
                "losses": session.loss().item(),
                "finished": can_be_finished(session),
            }
        )
    for kind, expected in expect.items():
        if isinstance(expected, dict):
            for layer, values in expected.items():
                assert [one[kind][layer] for one in states] == pytest.approx(values), (kind, layer)
        else:
            assert [one[kind] for one in states] == pytest.approx(expected), kind
