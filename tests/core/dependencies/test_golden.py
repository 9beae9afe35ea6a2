"""Agreement with the reference's dependency groups."""

import warnings

import pytest
import torch

import tersely
from tersely.planning.resolve import PlanWarning


@pytest.mark.golden("dependency.json")
def test_groups_and_runs_agree(case, golden):
    model = golden.model(case)
    given = [{"op_types": case["op_types"], "sparse_ratio": 0.5}]

    with warnings.catch_warnings():
        warnings.simplefilter("error", PlanWarning)
        found = tersely.auto_dependency_groups(model, given, torch.zeros(case["input_shape"]))

    groups = {}
    for entry in found:
        for name in entry.get("op_names", ()):
            groups.setdefault(entry.get("dependency_group_id", name), []).append(name)
    # The reference lists a module without a partner as a group of one.
    named = {name for group in groups.values() for name in group}
    alone = [[name] for [name, *more] in case["groups"] if not more and name not in named]
    assert sorted([*groups.values(), *alone]) == sorted(case["groups"])
    runs = {
        name: entry.get("internal_metric_block", 1)
        for entry in found
        for name in entry.get("op_names", ())
    }
    expected = case["internal_metric_block"]
    assert {name: runs.get(name, 1) for name in expected} == {
        name: value or 1 for name, value in expected.items()
    }
