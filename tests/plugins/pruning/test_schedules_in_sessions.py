"""The reference's tables of masked counts, reproduced step by step by a session."""

import pytest
import torch
from torch import nn

import tersely

NAMES = {"AGPPruner": "agp", "LinearPruner": "linear"}


def has_a_ratio(case):
    return case["algo"] in NAMES and "sparse_ratio" in case["goal"]


@pytest.mark.golden("schedule.json", select=has_a_ratio)
def test_masked_counts_agree_with_the_reference_after_every_step(case):
    layer = nn.Linear(16, case["numel"] // 16, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.randperm(case["numel"]).view_as(layer.weight) + 1)
    model = nn.Sequential(layer)
    schedule = {
        "name": NAMES[case["algo"]],
        "every": case["interval_steps"],
        "times": case["total_times"],
    }
    entry = {"op_names": ["0"], **case["goal"]}
    stage = {"algorithm": "level", "schedule": schedule, "config_list": [entry]}
    session = tersely.attach(model, {"pruning": stage})
    session.compress()

    counts = {}
    for step in range(1, max(row["step"] for row in case["table"]) + 1):
        session.step()
        counts[step] = int((~session.masks()["0"]["weight"]).sum())

    assert counts == {row["step"]: row["masked"] for row in case["table"]}
