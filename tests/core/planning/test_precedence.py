"""How template, shortcuts and target_settings combine, and who keeps a target configured twice."""

import warnings

import pytest
from messages.planning import NO_MEANING_FOR_IT, NO_SUCH_NAME, NO_SUCH_TYPE, REMOVE_ONE
from torch import nn

import tersely
from tersely.document.recipe import Entry, Stage
from tersely.planning.resolve import PlanWarning


def by_name(plan):
    return {target.name: target.setting.to_dict() for target in plan}


def test_a_shortcut_does_not_reach_a_target_whose_template_lacks_the_key(make, net):
    found = by_name(make(net, {"op_names": ["fc1"], "sparse_ratio": 0.5}))

    assert found["fc1.weight"]["sparse_ratio"] == 0.5
    assert "sparse_ratio" not in found["fc1.bias"]


def test_a_setting_of_its_own_takes_a_bias_out_of_its_align(make, net):
    entry = {"op_names": ["fc1"], "sparse_ratio": 0.5}
    found = by_name(make(net, {**entry, "target_settings": {"bias": {"sparse_ratio": 0.25}}}))

    assert found["fc1.bias"] == {"align": None, "apply_method": "mul", "sparse_ratio": 0.25}


def test_a_weight_that_is_told_to_follow_loses_the_ratio_of_the_entry(make, net):
    follow = {"align": {"module_name": "bn", "target_name": "weight", "dims": [0]}}
    net.fc1 = nn.Linear(4, 4)
    plan = make(
        net,
        {"op_names": ["bn"], "target_names": ["weight"], "sparse_ratio": 0.5},
        {"op_names": ["fc1"], "sparse_ratio": 0.5, "target_settings": {"weight": follow}},
    )

    assert by_name(plan)["fc1.weight"]["sparse_ratio"] is None


def test_null_in_target_settings_leaves_the_lower_layers_in_force(make, net):
    entry = {"op_names": ["fc1"], "sparse_ratio": 0.5}
    found = by_name(make(net, {**entry, "target_settings": {"weight": {"sparse_ratio": None}}}))

    assert found["fc1.weight"]["sparse_ratio"] == 0.5


def test_a_null_shortcut_leaves_the_template_in_force(make, net):
    plan = make(net, {"op_names": ["fc1"], "quant_dtype": None}, method="quantization")

    assert by_name(plan)["fc1.weight"]["quant_dtype"] == "int8"


def test_the_mask_value_reaches_the_targets_that_are_masked(make, net):
    entry = {"op_names": ["fc1"], "sparse_ratio": 0.5, "apply_method": "add", "mask_value": -9.0}
    found = by_name(make(net, entry))

    assert [setting["mask_value"] for setting in found.values()] == [-9.0, -9.0]


def test_a_projection_reaches_the_targets_that_are_linked(make, net):
    plan = make(net, {"op_names": ["fc1"], "projection": "linear"}, method="distillation")

    assert by_name(plan)["fc1._output_"]["projection"] == "linear"


def test_both_a_ratio_and_a_threshold_after_all_layers_are_an_error(problems, net):
    entry = {"op_names": ["fc1"], "sparse_ratio": 0.5}
    entry["target_settings"] = {"weight": {"sparse_threshold": 0.1}}

    assert problems(net, entry) == [
        "pruning.config_list[0].target_settings.weight: the target has both 'sparse_ratio' and "
        "'sparse_threshold' after its entry's shortcut keys; give the entry's key to the other "
        "targets in target_settings instead"
    ]


def test_a_recipe_made_by_hand_cannot_rank_what_follows(net):
    own = {"align": {"target_name": "weight", "dims": [0]}, "global_group_id": 1}
    entry = Entry(path="[0]", op_names=("fc1",), target_settings={"bias": own})
    stage = Stage(method="pruning", path="pruning", algorithm="element", entries=(entry,))
    with pytest.raises(tersely.PlanError) as caught:
        tersely.plan(net, tersely.Recipe(stages=(stage,)))

    assert str(caught.value) == (
        "[0].target_settings.bias: a target with 'align' takes its mask from another target, "
        f"so 'global_group_id' {NO_MEANING_FOR_IT}; {REMOVE_ONE}"
    )


def test_bounds_that_cross_after_all_layers_are_an_error(problems, net):
    entry = {"op_names": ["fc1"], "sparse_ratio": 0.5, "min_sparse_ratio": 0.4}
    entry["target_settings"] = {"weight": {"max_sparse_ratio": 0.3}}

    assert problems(net, entry) == [
        "pruning.config_list[0].target_settings.weight: min_sparse_ratio 0.4 is larger than "
        "max_sparse_ratio 0.3"
    ]


def test_a_setting_for_a_target_that_is_left_out_is_unmatched(make, net):
    entry = {"op_names": ["fc1"], "target_names": ["weight"], "sparse_ratio": 0.5}
    plan = make(net, {**entry, "target_settings": {"bias": {"sparse_ratio": 0.25}}})

    assert [str(one) for one in plan.unmatched] == [
        "pruning.config_list[0].target_settings.bias: 'bias' is not among the entry's target_names"
    ]


def test_a_shortcut_that_reaches_no_target_gives_a_hint(make, net):
    plan = make(net, {"op_names": ["fc1"], "target_names": ["bias"], "sparse_threshold": 0.1},
                {"op_names": ["fc1"], "target_names": ["weight"], "sparse_ratio": 0.5})  # fmt: skip

    assert plan.hints[0] == (
        "pruning.config_list[0].sparse_threshold: reaches no target, because no target of this "
        "entry has the key in its template; write it in target_settings of the target you mean"
    )


def test_a_shortcut_that_reaches_one_class_of_several_gives_no_hint(make, net):
    plan = make(net, {"op_names": ["fc1", "act"], "sparse_ratio": 0.5})

    assert plan.hints == ()


OVERLAP = (
    {"op_types": ["Linear"], "target_names": ["weight"], "sparse_ratio": 0.1},
    {"op_names": ["fc1"], "target_names": ["weight"], "sparse_ratio": 0.9},
)


@pytest.mark.parametrize(("policy", "ratio"), [(None, 0.1), ("first", 0.1), ("last", 0.9)])
def test_the_policy_decides_which_pruning_entry_keeps_a_target(make, net, policy, ratio):
    plan = make(net, *OVERLAP, on_conflict=policy)

    assert by_name(plan)["fc1.weight"]["sparse_ratio"] == ratio
    assert len(plan) == 2


@pytest.mark.parametrize(("policy", "dtype"), [(None, "int4"), ("first", "int8"), ("last", "int4")])
def test_the_policy_decides_which_quantization_entry_keeps_a_target(make, net, policy, dtype):
    entries = [{"op_types": ["Linear"]}, {"op_names": ["fc1"], "quant_dtype": "int4"}]
    plan = make(net, *entries, method="quantization", on_conflict=policy)

    assert by_name(plan)["fc1.weight"]["quant_dtype"] == dtype


def test_the_first_distillation_entry_keeps_a_target(make, net):
    entries = [{"op_names": ["fc1"], "lambda": 1}, {"op_names": ["fc1"], "lambda": 2}]

    assert by_name(make(net, *entries, method="distillation"))["fc1._output_"]["lambda"] == 1


def test_a_conflict_can_be_an_error(problems, net):
    assert problems(net, *OVERLAP, on_conflict="error") == [
        "fc1.weight is configured twice, by pruning.config_list[0] (op_types: Linear) and by "
        "pruning.config_list[1] (op_names: fc1); remove one, or set on_conflict to 'first' or 'last'"
    ]


def test_the_loser_is_told_with_both_origins(make, net):
    assert [str(one) for one in make(net, *OVERLAP).shadowed] == [
        "fc1.weight is configured twice: pruning.config_list[0] (op_types: Linear) is in force, "
        "pruning.config_list[1] (op_names: fc1) is not"
    ]


def test_under_last_the_roles_are_exchanged(make, net):
    (one,) = make(net, *OVERLAP, on_conflict="last").shadowed

    assert (one.winner.path, one.loser.path) == ("pruning.config_list[1]", "pruning.config_list[0]")


def test_two_spellings_of_one_output_are_one_target(make, net):
    plan = make(
        net,
        {"op_names": ["fc1"], "target_names": ["_output_"], "sparse_ratio": 0.1},
        {"op_names": ["fc1"], "target_names": ["_output_0"], "sparse_ratio": 0.2},
    )

    assert [target.name for target in plan] == ["fc1._output_"]
    assert [one.target for one in plan.shadowed] == ["_output_0"]


def test_a_tied_parameter_configured_under_two_names_is_configured_twice(make, linears):
    model = linears(2)
    model[1].weight = model[0].weight
    entries = [{"op_names": [name], "sparse_ratio": 0.5} for name in ("1", "0")]
    plan = make(model, *entries)

    assert [(target.name, target.shared_with) for target in plan] == [("1.weight", ("0.weight",))]
    assert [one.module for one in plan.shadowed] == ["0"]


def test_two_stages_of_one_kind_conflict_like_two_entries(net):
    stages = [
        {"algorithm": name, "config_list": [{"op_names": ["fc1"], "sparse_ratio": 0.5}]}
        for name in ("element", "channel")
    ]
    with pytest.warns(PlanWarning, match="2 configured twice"):
        plan = tersely.plan(net, {"pruning": stages})

    assert {target.algorithm for target in plan} == {"element"}


def test_stages_of_different_kinds_never_conflict(net, recipe_of):
    entry = {"op_names": ["fc1"], "target_names": ["weight"]}
    recipe = recipe_of({**entry, "sparse_ratio": 0.5}) | recipe_of(entry, method="quantization")

    assert [target.method for target in tersely.plan(net, recipe)] == ["pruning", "quantization"]


def test_targets_stand_in_the_order_of_the_model_whatever_the_order_of_entries(make, linears):
    entries = [{"op_names": [name], "sparse_ratio": 0.5} for name in ("2", "0", "1")]

    assert [target.module for target in make(linears(3), *entries)] == ["0", "1", "2"]


def test_the_order_of_the_model_holds_when_the_last_entry_wins(make, linears):
    entries = [
        {"op_types": ["Linear"], "sparse_ratio": 0.5},
        {"op_names": ["0"], "sparse_ratio": 0},
    ]
    plan = make(linears(3), *entries, on_conflict="last")

    assert [target.module for target in plan] == ["0", "1", "2"]


def planned_warnings(model, recipe):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        tersely.plan(model, recipe)
    assert {one.category for one in caught} <= {PlanWarning}
    return [str(one.message) for one in caught]


def test_everything_unmatched_is_one_warning(net, recipe_of):
    recipe = recipe_of({"op_names": ["fc1", "x", "y"], "sparse_ratio": 0.5})

    assert planned_warnings(net, recipe) == [
        (
            "2 matched nothing (tersely.plan(...) lists them):\n"
            f"  pruning.config_list[0].op_names[1]: 'x': {NO_SUCH_NAME}\n"
            f"  pruning.config_list[0].op_names[2]: 'y': {NO_SUCH_NAME}"
        )
    ]


def test_everything_shadowed_is_one_warning(net, recipe_of):
    entries = [{"op_names": ["fc1"], "sparse_ratio": ratio} for ratio in (0.1, 0.2)]

    assert planned_warnings(net, recipe_of(*entries)) == [
        "2 configured twice (tersely.plan(...) lists them):\n"
        "  fc1.weight is configured twice: pruning.config_list[0] (op_names: fc1) is in force, "
        "pruning.config_list[1] (op_names: fc1) is not\n"
        "  fc1.bias is configured twice: pruning.config_list[0] (op_names: fc1) is in force, "
        "pruning.config_list[1] (op_names: fc1) is not"
    ]


def test_a_warning_lists_the_first_ten(net, recipe_of):
    recipe = recipe_of({"op_names": ["fc1", *(f"x{n}" for n in range(12))], "sparse_ratio": 0.5})
    (warning,) = planned_warnings(net, recipe)

    assert len(warning.splitlines()) == 12
    assert warning.splitlines()[-1] == "  ... and 2 more"


def test_a_plan_without_findings_warns_of_nothing(net, recipe_of):
    assert planned_warnings(net, recipe_of({"op_names": ["fc1"], "sparse_ratio": 0.5})) == []


def test_the_warning_points_at_the_caller(net, recipe_of):
    with pytest.warns(PlanWarning) as caught:
        tersely.plan(net, recipe_of({"op_names": ["fc1", "x"], "sparse_ratio": 0.5}))

    assert caught[0].filename == __file__


def test_strict_makes_what_matched_nothing_an_error(problems, net):
    entry = {"op_names": ["fc1", "fc2"], "op_types": ["Linear", "Conv3d"], "sparse_ratio": 0.5}

    assert problems(net, entry, strict=True) == [
        f"pruning.config_list[0].op_names[1]: 'fc2': {NO_SUCH_NAME}; did you mean 'fc1'?",
        f"pruning.config_list[0].op_types[1]: 'Conv3d': {NO_SUCH_TYPE}; did you mean 'Conv2d'?",
    ]


def test_strict_leaves_shadowed_targets_a_warning(make, net):
    assert len(make(net, *OVERLAP, strict=True).shadowed) == 1
