"""Writing ties into a config list, with a tracer that says what the test wants."""

import copy
import warnings

import pytest
from messages.documents import found
from messages.planning import (
    LEAVE_ONE_OUT,
    LEAVE_OUT_BY_NAME,
    NO_SUCH_TYPE,
    SAME_POSITIONS,
    SHARED_CHANNELS,
)
from torch import nn

import tersely
from tersely.planning.resolve import PlanWarning

PLACE = "stand_ins_of_planning_tests"
CONVS = {"op_types": ["Conv2d"], "sparse_ratio": 0.5}


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(3, 8, 1)
        self.b = nn.Conv2d(3, 8, 1)
        self.c = nn.Conv2d(8, 4, 1)
        self.norm = nn.BatchNorm2d(8)


def tracer_of(*groups):
    """A tracer that knows groups of parameters and finds all others to be alone."""

    class Tracer:
        asked = None

        def trace(self, model, example_inputs, *, parameters):
            type(self).asked = (model, example_inputs, parameters)
            found, placed = [], set()
            for shared in groups:
                here = tuple(name for name in shared.parameters if name in parameters)
                if here:
                    found.append(
                        tersely.SharedChannels(
                            parameters=here,
                            runs=shared.runs,
                            is_tied_to_itself=shared.is_tied_to_itself,
                        )
                    )
                placed |= set(here)
            found += [
                tersely.SharedChannels(parameters=(name,))
                for name in parameters
                if name not in placed
            ]
            return found

    return Tracer


def together(*parameters, **more):
    return tersely.SharedChannels(parameters=parameters, **more)


@pytest.fixture
def group(register):
    """Group with a tracer that knows the given groups."""

    def group(config_list, *groups, model=None, tracer=None):
        implementation = tracer or tracer_of(*groups)
        name = register(
            name="tracers",
            implementations=[implementation],
            tersely_dependency_tracers=[
                tersely.DependencyTracerInfo(
                    name="stand_in", implementation=f"{PLACE}:{implementation.__name__}"
                )
            ],
        )
        try:
            return tersely.auto_dependency_groups(
                model or Net(), config_list, "inputs", tracer="stand_in"
            )
        finally:
            tersely.registry().unregister(name)

    return group


def settings_of(config_list, model=None, target="weight"):
    recipe = {"pruning": {"algorithm": "channel", "config_list": config_list}}
    plan = tersely.plan(model or Net(), recipe)
    return {one.module: one.setting.to_dict() for one in plan if one.target == target}


def message_of(error, action, *arguments, **more):
    with pytest.raises(error) as caught:
        action(*arguments, **more)
    return str(caught.value)


def test_tied_modules_get_an_entry_of_their_own_and_the_rest_excludes_them(group):
    found = group([CONVS], together("a.weight", "b.weight"))

    assert found == [
        {"op_names": ["a", "b"], "sparse_ratio": 0.5, "dependency_group_id": "channels_of_a"},
        {"op_types": ["Conv2d"], "sparse_ratio": 0.5, "exclude_op_names": ["a", "b"]},
    ]


def test_an_entry_of_which_nothing_is_left_is_dropped(group):
    found = group([CONVS], together("a.weight", "b.weight", "c.weight"), model=Alike())

    assert found == [
        {"op_names": ["a", "b", "c"], "sparse_ratio": 0.5, "dependency_group_id": "channels_of_a"}
    ]


class Alike(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = (nn.Conv2d(8, 8, 1) for _ in "abc")


def test_a_list_without_ties_is_returned_as_it_is(group):
    assert group([CONVS]) == [CONVS]


def test_the_given_list_is_not_changed(group):
    given = [{**CONVS, "target_settings": {"weight": {"granularity": "rows"}}}]
    before = copy.deepcopy(given)

    found = group(given, together("a.weight", "b.weight"))
    found[0]["target_settings"]["weight"]["granularity"] = "sizes"

    assert given == before


def test_runs_are_set_without_a_group_for_a_module_that_is_alone(group):
    found = group([CONVS], together("a.weight", runs=2))

    assert found[0] == {"op_names": ["a"], "sparse_ratio": 0.5, "internal_metric_block": 2}


def test_modules_with_the_same_to_say_share_an_entry(group):
    found = group([CONVS], together("a.weight", runs=2), together("c.weight", runs=2))

    assert found[0]["op_names"] == ["a", "c"]


def test_runs_that_the_list_asks_for_already_are_met_too(group):
    given = [{**CONVS, "op_names": ["a", "b"], "internal_metric_block": 4}]

    found = group(given, together("a.weight", "b.weight", runs=2))

    assert found[0]["internal_metric_block"] == 4


def test_every_other_key_of_an_entry_is_kept(group):
    given = [
        {
            "op_names_re": ["[abc]"],
            "exclude_op_names": ["c"],
            "sparse_ratio": 0.5,
            "max_sparse_ratio": 0.75,
            "target_settings": {"bias": {"apply_method": "add"}},
        }
    ]

    found = group(given, together("a.weight", "b.weight"))

    assert found == [
        {
            "op_names": ["a", "b"],
            "sparse_ratio": 0.5,
            "max_sparse_ratio": 0.75,
            "target_settings": {"bias": {"apply_method": "add"}},
            "dependency_group_id": "channels_of_a",
        }
    ]


def test_members_of_two_entries_stay_under_their_own_entry(group):
    given = [
        {"op_names": ["a"], "sparse_ratio": 0.5, "max_sparse_ratio": 0.75},
        {"op_names": ["b"], "sparse_ratio": 0.5},
    ]

    found = group(given, together("a.weight", "b.weight"))

    assert settings_of(found)["a"]["max_sparse_ratio"] == 0.75
    assert settings_of(found)["b"]["max_sparse_ratio"] is None
    assert [entry["dependency_group_id"] for entry in found] == ["channels_of_a"] * 2


def test_the_first_entry_keeps_its_precedence(group):
    given = [{"op_names": ["a"], "sparse_ratio": 0.25}, {**CONVS, "op_names": ["a", "c"]}]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PlanWarning)
        found = group(given, together("a.weight", runs=2), together("c.weight", runs=2))
        settings = settings_of(found)

    assert (settings["a"]["sparse_ratio"], settings["a"]["internal_metric_block"]) == (0.25, 2)
    assert (settings["c"]["sparse_ratio"], settings["c"]["internal_metric_block"]) == (0.5, 2)


def test_a_setting_of_the_target_itself_is_not_outdone_by_the_entry(group):
    given = [{**CONVS, "target_settings": {"weight": {"internal_metric_block": 4}}}]

    found = group(given, together("a.weight", "b.weight", runs=8))

    assert settings_of(found)["a"]["internal_metric_block"] == 8
    assert settings_of(found)["c"]["internal_metric_block"] == 4


def test_an_input_that_is_pruned_beside_the_weight_is_no_member(group):
    given = [{**CONVS, "target_names": ["weight", "_input_"]}]

    found = group(given, together("a.weight", "b.weight"))

    assert "dependency_group_id" not in found[0]
    assert found[0]["target_settings"] == {"weight": {"dependency_group_id": "channels_of_a"}}
    assert settings_of(found, target="_input_")["a"]["dependency_group_id"] is None


def test_only_targets_that_decide_on_output_channels_are_traced(group):
    tracer = tracer_of()
    given = [
        {"op_names": ["a"], "sparse_ratio": 0.5},
        {"op_names": ["b"], "sparse_ratio": 0.5, "granularity": [1, 1, 1, 1]},
        {"op_names": ["c"], "sparse_ratio": 0.5, "granularity": "rows"},
        {"op_names": ["norm"], "sparse_ratio": 0.5, "target_names": ["_output_"]},
    ]
    model = Net()

    group(given, tracer=tracer, model=model)

    assert tracer.asked == (model, "inputs", ("a.weight", "c.weight"))


def test_a_list_without_such_targets_needs_no_run(group):
    tracer = tracer_of()

    found = group([{**CONVS, "granularity": [1, 1, 1, 1]}], tracer=tracer)

    assert found == [{**CONVS, "granularity": [1, 1, 1, 1]}]
    assert tracer.asked is None


def test_an_id_that_the_user_gave_is_the_id_of_the_group(group):
    given = [
        {"op_names": ["a"], "sparse_ratio": 0.5, "dependency_group_id": 7},
        {"op_names": ["b"], "sparse_ratio": 0.5},
    ]

    found = group(given, together("a.weight", "b.weight"))

    assert [entry["dependency_group_id"] for entry in found] == [7, 7]


def test_an_id_that_is_taken_is_not_given_again(group):
    given = [
        {"op_names": ["a", "b"], "sparse_ratio": 0.5},
        {"op_names": ["c"], "sparse_ratio": 0.5, "dependency_group_id": "channels_of_a"},
    ]

    found = group(given, together("a.weight", "b.weight"))

    assert found[0]["dependency_group_id"] == "channels_of_a_2"


def test_a_partner_that_asks_for_nothing_is_not_drawn_in(group):
    given = [{"op_names": ["a"], "sparse_ratio": 0.5}, {"op_names": ["b"]}]

    assert group(given, together("a.weight", "b.weight")) == given


def test_partners_with_different_ratios_are_told(group):
    given = [{"op_names": ["a"], "sparse_ratio": 0.5}, {"op_names": ["b"], "sparse_ratio": 0.25}]

    assert message_of(tersely.PlanError, group, given, together("a.weight", "b.weight")) == (
        f"a.weight and b.weight {SHARED_CHANNELS} and {SAME_POSITIONS}, so they need one "
        "sparse_ratio; found 0.5 (a.weight, [0] (op_names: a)) and 0.25 (b.weight, [1] "
        "(op_names: b))"
    )


def test_partners_with_different_numbers_of_blocks_are_told(group):
    assert message_of(tersely.PlanError, group, [CONVS], together("a.weight", "c.weight")) == (
        f"a.weight and c.weight {SHARED_CHANNELS}, but not their number of blocks: found 8 "
        f"(a.weight) and 4 (c.weight); {LEAVE_ONE_OUT}"
    )


def test_a_weight_that_is_tied_to_itself_is_warned_of(group):
    with pytest.warns(PlanWarning) as caught:
        found = group([CONVS], together("a.weight", runs=4, is_tied_to_itself=True))

    assert str(caught[0].message) == (
        "a.weight (internal_metric_block 4): several output channels of one weight belong "
        "together, as in a packed projection of query, key and value, which no key can "
        "express; internal_metric_block keeps its parts equally long, but may remove "
        f"different channels of each; use separate projections, or {LEAVE_OUT_BY_NAME}"
    )
    assert found[0]["internal_metric_block"] == 4


def test_what_matches_nothing_is_warned_of(group):
    with pytest.warns(PlanWarning, match=f"'Linear': {NO_SUCH_TYPE}"):
        group([{"op_types": ["Conv2d", "Linear"], "sparse_ratio": 0.5}])


def test_a_wrong_list_is_a_config_error_with_paths_into_the_list(group):
    text = message_of(tersely.ConfigError, group, [{"op_types": ["Conv2d"], "sparse_ratio": 2}])

    assert "[0].sparse_ratio: " + found("2", "a number from 0 to 1") in text


def test_a_tracer_that_nobody_provides_is_told():
    with pytest.raises(tersely.UnknownPluginError, match="no plugin provides a tracer called 'x'"):
        tersely.auto_dependency_groups(Net(), [CONVS], None, tracer="x")


def test_a_tracer_that_fails_is_a_broken_plugin(group):
    class Failing:
        def trace(self, model, example_inputs, *, parameters):
            raise RuntimeError("no")

    assert message_of(tersely.BrokenPluginError, group, [CONVS], tracer=Failing) == (
        "tracer 'stand_in' of tracers 0+local is broken: trace() raised RuntimeError: no"
    )


def test_what_a_tracer_says_of_the_model_is_passed_on(group):
    class Refusing:
        def trace(self, model, example_inputs, *, parameters):
            raise tersely.PlanError("module 'a' cannot be followed")

    text = message_of(tersely.PlanError, group, [CONVS], tracer=Refusing)

    assert text == "module 'a' cannot be followed"


def test_a_tracer_that_forgets_a_parameter_is_a_broken_plugin(group):
    class Forgetful:
        def trace(self, model, example_inputs, *, parameters):
            return [tersely.SharedChannels(parameters=parameters[:1])]

    assert message_of(tersely.BrokenPluginError, group, [CONVS], tracer=Forgetful) == (
        "tracer 'stand_in' of tracers 0+local is broken: trace() has to place each of "
        "a.weight, b.weight, c.weight once, but it placed a.weight"
    )


def test_the_result_is_a_list_that_can_be_planned(group):
    found = group([CONVS], together("a.weight", "b.weight", runs=2))

    settings = settings_of(found)

    assert {name: one["dependency_group_id"] for name, one in settings.items()} == {
        "a": "channels_of_a",
        "b": "channels_of_a",
        "c": None,
    }
    assert settings_of(found, target="bias")["a"]["align"]["target_name"] == "weight"
