"""Family periods: what is in force step by step, in a recipe whose stages come one by one."""

import copy
import re

import pytest
import torch
from torch import nn

import tersely


class Chain(nn.Module):
    """Runs its layers one after another."""

    def forward(self, values):
        for layer in self.children():
            values = layer(values)
        return values


def layers(rows):
    """A module with one linear layer for each row, or list of rows, of weights."""
    model = Chain()
    for name, values in rows.items():
        weights = torch.tensor(values, dtype=torch.float32).reshape(-1, len(_row(values)))
        layer = nn.Linear(weights.shape[1], weights.shape[0], bias=False)
        with torch.no_grad():
            layer.weight.copy_(weights)
        model.add_module(name, layer)
    return model


def _row(values):
    return values[0] if isinstance(values[0], list) else values


def can_be_finished(session):
    twin = copy.deepcopy(session)
    open_stages = (*session.waiting, *session.to_shrink)
    if not open_stages:
        twin.finalize()
        return True
    with pytest.raises(tersely.SessionError, match="|".join(map(re.escape, open_stages))):
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
    example = torch.ones(1, len(_row(given["weights"]["a"]))) if "is_chain" in given else None
    session = tersely.attach(model, given["recipe"], teacher=teacher, example_inputs=example)
    optimizer = torch.optim.SGD(model.parameters())
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
            session.step(optimizer=optimizer)
        states.append(
            {
                "masked": {layer: masked(session, layer) for layer in given["weights"]},
                "scales": {layer: scale(session, layer) for layer in given["weights"]},
                "rows": {name: len(layer.weight) for name, layer in model.named_children()},
                "columns": {name: layer.weight.shape[1] for name, layer in model.named_children()},
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
