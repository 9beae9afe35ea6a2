"""Planning changes nothing, calls nothing, and comes to the same result every time."""

import copy
import json
import os
import random
import subprocess
import sys

import pytest
import torch
from torch import nn

import tersely

EVERYTHING = (
    {"op_types": ["Linear", "Conv2d"], "sparse_ratio": 0.5},
    {"op_names": ["bn"], "sparse_ratio": 0.5, "target_names": ["weight", "_input_", "_output_"]},
)


@pytest.fixture
def recipe(recipe_of):
    return (
        recipe_of(*EVERYTHING)
        | recipe_of({"op_types": ["Linear"]}, method="quantization")
        | recipe_of({"op_names": ["act"]}, method="distillation")
    )


def snapshot(model):
    return {
        name: (
            type(module),
            list(vars(module)),
            [list(getattr(module, hooks)) for hooks in vars(module) if hooks.endswith("_hooks")],
            [(key, id(value)) for key, value in module._parameters.items()],
            [(key, id(value)) for key, value in module._buffers.items()],
        )
        for name, module in model.named_modules()
    }


def test_the_model_is_as_it_was(net, recipe):
    before, values = snapshot(net), copy.deepcopy(net.state_dict())
    versions = [parameter._version for parameter in net.parameters()]

    tersely.plan(net, recipe)

    assert snapshot(net) == before
    assert [parameter._version for parameter in net.parameters()] == versions
    assert all(torch.equal(value, values[name]) for name, value in net.state_dict().items())


def test_a_plan_that_cannot_be_made_leaves_the_model_too(net, problems):
    before = snapshot(net)

    problems(net, {"op_names": ["fc1"], "target_names": ["gamma"]})

    assert snapshot(net) == before


def test_no_forward_is_called(recipe, net):
    def refuse(*arguments):
        raise AssertionError("forward was called")

    net.register_forward_pre_hook(refuse)
    for module in net.modules():
        module.forward = refuse

    assert len(tersely.plan(net, recipe)) > 0


def test_no_random_number_is_drawn(net, recipe):
    torch.manual_seed(0)
    random.seed(0)
    expected = torch.rand(1), random.random()
    torch.manual_seed(0)
    random.seed(0)

    tersely.plan(net, recipe)

    assert (torch.rand(1), random.random()) == expected


def test_the_recipe_is_as_it_was(net, recipe):
    before = copy.deepcopy(recipe)

    tersely.plan(net, recipe)

    assert recipe == before


def test_the_same_plan_comes_out_twice(net, recipe):
    assert tersely.plan(net, recipe) == tersely.plan(net, recipe)


def test_a_loaded_recipe_its_data_and_its_file_come_to_one_plan(net, recipe, tmp_path):
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps(recipe))

    from_data = tersely.plan(net, recipe)
    from_file = tersely.plan(net, path)

    assert tersely.plan(net, tersely.load_recipe(recipe)) == from_data
    assert [one.name for one in from_file] == [one.name for one in from_data]
    assert from_file.targets[0].origin.line == 1


SCRIPT = """
import json, warnings
from torch import nn
import tersely

class Face:
    @tersely.hookimpl
    def tersely_pruners(self):
        return [tersely.PrunerInfo(name="anything", implementation="nowhere:Nothing")]

tersely.registry().register(Face(), name="stand-ins")
names = [f"layer{number}" for number in range(40)]
model = nn.ModuleDict({name: nn.Linear(2, 2) for name in names})
for name in names[::3]:
    model[name].bias = model["layer0"].bias
entries = [
    {"op_names_re": ["layer1", "layer.*"], "exclude_op_names": names[5:8] + ["gone"],
     "exclude_op_types": ["ReLU", "Linear2"], "sparse_ratio": 0.5, "global_group_id": "g"},
    {"op_names": names[3:9], "sparse_ratio": 0.25, "dependency_group_id": "d"},
]
recipe = {"pruning": {"algorithm": "anything", "config_list": entries}}
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    plan = tersely.plan(model, recipe)
print(json.dumps(plan.to_dict()))
print(plan)
"""


@pytest.mark.slow
def test_the_hash_seed_does_not_matter(fresh, tmp_path):
    own = os.environ.get("PYTHONHASHSEED")
    other = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={**os.environ, "PYTHONHASHSEED": "2" if own == "1" else "1"},
        capture_output=True,
        text=True,
        check=True,
    )

    planned = fresh.run("-c", SCRIPT, cwd=tmp_path)

    assert planned.stdout == other.stdout
    assert len(planned.stdout) > 10_000


@pytest.mark.parametrize(
    ("model", "kind"), [("net.pt", "str"), (nn.Linear, "type"), (None, "NoneType")]
)
def test_a_model_that_is_no_module_is_an_error(recipe, model, kind):
    with pytest.raises(tersely.PlanError) as caught:
        tersely.plan(model, recipe)

    assert str(caught.value) == f"the model must be a torch.nn.Module, found {kind}"


def test_a_teacher_that_is_no_module_is_an_error(recipe, net):
    with pytest.raises(tersely.PlanError) as caught:
        tersely.plan(net, recipe, teacher="big.pt")

    assert str(caught.value) == "the teacher must be a torch.nn.Module, found str"


def test_one_problem_is_the_whole_message(problems, net, make):
    entry = {"op_names": ["fc1"], "target_names": ["gamma"]}
    with pytest.raises(tersely.PlanError) as caught:
        make(net, entry)

    assert [str(caught.value)] == problems(net, entry)


def test_several_problems_are_counted_and_listed():
    assert str(tersely.PlanError(["first", "second"])) == (
        "the plan has 2 problems:\n  first\n  second"
    )


def test_a_flood_of_problems_is_cut_in_the_text_only():
    error = tersely.PlanError([f"problem {number}" for number in range(60)])

    assert len(error.problems) == 60
    assert str(error).splitlines()[-1] == "  ... and 10 more, listed in problems"
    assert len(str(error).splitlines()) == 52


def test_plugins_are_told_of_a_plan(register, net, recipe):
    seen = []

    class Watcher:
        @tersely.hookimpl
        def tersely_plan_resolved(self, plan):
            seen.append(plan)

    tersely.registry().register(Watcher(), name="watcher")

    assert [tersely.plan(net, recipe)] == seen
