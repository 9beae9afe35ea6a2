"""Agreement with the reference: which modules it selects, and with which settings."""

import warnings

import pytest
from torch import nn

import tersely
from tersely.planning.targets.addresses import twin

MODULES = {
    "Linear": lambda: nn.Linear(4, 4),
    "Conv1d": lambda: nn.Conv1d(4, 4, 1),
    "Conv2d": lambda: nn.Conv2d(4, 4, 1),
    "Embedding": lambda: nn.Embedding(4, 4),
    "BatchNorm2d": lambda: nn.BatchNorm2d(4),
    "ReLU": nn.ReLU,
    "MaxPool2d": lambda: nn.MaxPool2d(2),
    "Foo": type("Foo", (nn.Module,), {}),
}


# An entry without a selector is a document error here (rule S1).
@pytest.mark.golden("selection.json", select=lambda case: case["config"])
def test_the_same_modules_are_selected(case, golden):
    model = golden.models.build(case["model"], 0)
    recipe = {"distillation": {"config_list": [case["config"]]}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plan = tersely.plan(model, recipe)

    assert sorted(plan.selected) == case["selected"]


@pytest.mark.golden("settings.json")
def test_the_same_settings_come_out(case, make):
    model = nn.ModuleDict({"conv": nn.Conv2d(4, 4, 1), "it": MODULES[case["module"]]()})
    source = {"op_names": ["conv"], "target_names": ["weight"], "sparse_ratio": 0.5}
    others = [source] if case["mode"] == "pruning" else []
    plan = make(model, *others, {"op_names": ["it"], **case["config"]}, method=case["mode"])
    found = {target.target: target.setting.to_dict() for target in plan if target.module == "it"}

    # The reference renames _input_ to _input_0; here a target keeps the name it was given.
    assert {
        twin(name) if name.startswith("_") else name: value for name, value in found.items()
    } == (case["settings"])
