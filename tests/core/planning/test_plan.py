"""A plan as data: JSON and pickle both ways, frozen settings, and the table people read."""

import copy
import json
import pickle

import attrs
import pytest
from messages.planning import NONE_THERE
from torch import nn

import tersely
from tersely.contracts.frozen_json import FrozenMapping


@pytest.fixture
def rich_plan(make, net):
    """A plan with every sort of finding."""
    return make(
        net,
        {"op_names": ["fc1", "fc10", "gone"], "sparse_ratio": 0.5},
        {"op_names_re": ["fc1"], "sparse_ratio": 0.25, "global_group_id": 1},
        {
            "op_names": ["bn"],
            "target_names": ["weight", "_output_"],
            "target_settings": {"weight": {"align": {"module_name": "conv", "target_name": "weight", "dims": [0]}}},
            "sparse_threshold": 0.1,
        },
        {"op_names": ["conv"], "target_names": ["weight"], "granularity": [1, 1, 1, 3], "sparse_ratio": 1},
    )  # fmt: skip


def test_a_plan_goes_through_json_and_back(rich_plan):
    text = json.dumps(rich_plan.to_dict())

    assert tersely.Plan.from_dict(json.loads(text)) == rich_plan


def test_a_plan_from_a_file_goes_through_json_and_back(make, net, tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "pruning:\n  algorithm: element\n  config_list:\n"
        "    - op_names: [fc1]\n      sparse_ratio: 0.5\n"
    )
    plan = tersely.plan(net, path)
    again = tersely.Plan.from_dict(json.loads(json.dumps(plan.to_dict())))

    assert again == plan
    assert again.targets[0].origin.line == 4


def test_a_plan_that_went_through_json_says_the_same(rich_plan):
    again = tersely.Plan.from_dict(json.loads(json.dumps(rich_plan.to_dict())))

    assert str(again) == str(rich_plan)
    assert again.to_dict() == rich_plan.to_dict()


def test_a_plan_of_another_format_is_an_error(rich_plan):
    with pytest.raises(tersely.PlanError) as caught:
        tersely.Plan.from_dict({**rich_plan.to_dict(), "format": 7})

    assert str(caught.value) == ("expected a plan of format 1, found 7; plan again from the recipe")


def test_a_list_is_no_plan():
    with pytest.raises(tersely.PlanError) as caught:
        tersely.Plan.from_dict([])

    assert str(caught.value) == (
        "expected a plan of format 1, found 'list'; plan again from the recipe"
    )


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda data: data.pop("targets"), "targets is missing"),
        (lambda data: data["targets"][0].pop("origin"), "targets[0].origin is missing"),
        (lambda data: data["skipped"].append(5), "skipped is "),
        (
            lambda data: data["targets"][0]["blocks"].update(size=["x"]),
            "targets[0].blocks.size is ['x'], expected a list of positive integers and -1",
        ),
        (lambda data: data["targets"][0].update(more=1), "targets[0].more is not a key of a plan"),
        (
            lambda data: data["targets"][0].update(stage=9),
            "targets[0].stage is 9, and the recipe has ",
        ),
        (
            lambda data: data["targets"][0].update(method="distillation"),
            "targets[0].method is 'distillation', and its stage, ",
        ),
        (
            lambda data: data["targets"][0]["setting"].update(granularity=2),
            "setting.granularity: 2 is not valid",
        ),
    ],
    ids=[
        "no targets",
        "no origin",
        "no mapping",
        "no number",
        "no key",
        "no stage",
        "another method",
        "no granularity",
    ],
)
def test_a_damaged_plan_is_an_error(rich_plan, damage, reason):
    data = rich_plan.to_dict()
    damage(data)
    with pytest.raises(tersely.PlanError) as caught:
        tersely.Plan.from_dict(data)

    assert str(caught.value).startswith(f"the plan's data is damaged: {reason}")
    assert str(caught.value).endswith("; plan again")


def test_a_plan_whose_recipe_is_no_longer_valid_is_a_document_error(registry, rich_plan):
    data = rich_plan.to_dict()
    registry.unregister("stand-ins")

    with pytest.raises(tersely.ConfigError):
        tersely.Plan.from_dict(data)


@pytest.mark.parametrize(
    "twice",
    [copy.deepcopy, copy.copy, lambda plan: pickle.loads(pickle.dumps(plan))],
    ids=["deepcopy", "copy", "pickle"],
)
def test_a_plan_can_be_copied(rich_plan, twice):
    assert twice(rich_plan) == rich_plan


def test_a_copied_setting_is_frozen_as_well(rich_plan):
    setting = pickle.loads(pickle.dumps(rich_plan)).targets[0].setting

    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        setting.sparse_ratio = 0


CHANGES = {
    "setitem": lambda setting: setting.__setitem__("a", 1),
    "delitem": lambda setting: setting.__delitem__("sparse_ratio"),
    "update": lambda setting: setting.update(a=1),
    "ior": lambda setting: setting.__ior__({"a": 1}),
    "pop": lambda setting: setting.pop("sparse_ratio"),
    "popitem": lambda setting: setting.popitem(),
    "clear": lambda setting: setting.clear(),
    "setdefault": lambda setting: setting.setdefault("a", 1),
    "nested": lambda setting: setting["align"].update(dims=[1]),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_shared_json_refuses_every_change(change):
    setting = FrozenMapping.of({"sparse_ratio": 0.5, "align": {"dims": [0]}})
    with pytest.raises(TypeError) as caught:
        change(setting)

    assert str(caught.value) == ("a plan's setting is frozen; make a new recipe and plan again")


def test_equal_targets_have_equal_hashes(make, net):
    first, second = (make(net, {"op_names": ["fc1"], "sparse_ratio": 0.5}) for _ in range(2))

    assert {*first, *second} == {*first}


def test_a_plan_is_iterable_and_has_a_length(rich_plan):
    assert len(list(rich_plan)) == len(rich_plan) == len(rich_plan.targets)


def table(plan):
    """The lines of a table without the rule and the blanks around it."""
    return [line for line in str(plan).splitlines() if line.strip() and "─" not in line]


def test_a_plan_prints_as_a_table(make):
    model = nn.Sequential(nn.Linear(4, 2), nn.ReLU(), nn.Linear(2, 4, bias=False))
    model.add_module("again", model[2])
    plan = make(
        model,
        {"op_types": ["Linear"], "sparse_ratio": 0.5, "granularity": [1, 2]},
        {"op_names": ["1"], "sparse_threshold": 0.25, "apply_method": "add", "mask_value": -5.0},
    )

    assert table(plan) == [
        " module               target     shape   algorithm   setting                                                    decided by",
        " 0                    weight     2 x 4   element     sparse_ratio=0.5, granularity=[1, 2]                       pruning.config_list[0] (op_types: Linear)",
        " 0                    bias       2       element     aligned with 0.weight along [0]                            pruning.config_list[0] (op_types: Linear)",
        " 1                    _output_           element     sparse_threshold=0.25, apply_method=add, mask_value=-5.0   pruning.config_list[1] (op_names: 1)",
        " 2 (= again.weight)   weight     4 x 2   element     sparse_ratio=0.5, granularity=[1, 2]                       pruning.config_list[0] (op_types: Linear)",
        "4 targets in 3 selected modules",
        "skipped:",
        f"  2.bias is skipped: {NONE_THERE}",
    ]  # fmt: skip


def test_what_matched_nothing_and_what_lost_stand_below_the_table(rich_plan):
    lines = table(rich_plan)
    below = lines[lines.index("6 targets in 4 selected modules") :]

    assert [line for line in below if not line.startswith("  ")] == [
        "6 targets in 4 selected modules",
        "matched nothing:",
        "configured twice:",
        "skipped:",
        "hints:",
    ]


def test_one_target_is_counted_in_the_singular(make):
    plan = make(nn.Linear(2, 2, bias=False), {"op_names": [""], "sparse_ratio": 0.5})

    assert table(plan)[1].split()[0] == "(root)"
    assert table(plan)[2] == "1 target in 1 selected module"


def test_a_target_that_asks_for_nothing_says_so(make, net):
    plan = make(net, {"op_names": ["fc1"], "target_names": ["weight"]})

    assert "nothing asked" in table(plan)[1]


def test_what_a_pattern_holds_is_printed_as_written(make):
    model = nn.ModuleDict({"fc1": nn.ReLU()})
    plan = make(model, {"op_names_re": ["(?::x:)?[f]c[/1]"]}, method="distillation")

    assert "(op_names_re: (?::x:)?[f]c[/1])" in table(plan)[1]


def test_a_huge_plan_is_cut(make, linears):
    plan = make(linears(405, features=1), {"op_types": ["Linear"], "sparse_ratio": 0.5})
    lines = table(plan)

    assert lines[401:403] == [
        "... and 5 more targets (to_dict() has them all)",
        "405 targets in 405 selected modules",
    ]
    assert lines[400].split()[0] == "399"
