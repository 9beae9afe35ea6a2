"""Targets that follow others: the chains that hold, and every chain that does not."""

import pytest
from messages.planning import EQUAL_LENGTHS, no_module
from torch import nn

import tersely


def follows(module, target="weight", dims=(0,)):
    align = {"target_name": target, "dims": list(dims)}
    return {"align": align if module is None else {**align, "module_name": module}}


def following(name, source, *, target="weight", of="weight", dims=(0,)):
    return {
        "op_names": [name],
        "target_names": [target],
        "target_settings": {target: follows(source, of, dims)},
    }


RANKED = {"op_names": ["0"], "target_names": ["weight"], "sparse_ratio": 0.5}


def test_a_chain_over_several_modules_holds(make, linears):
    plan = make(linears(4), following("3", "2"), following("2", "1"), following("1", "0"), RANKED)

    assert len(plan) == 4


def test_a_source_may_be_named_by_its_alias(make):
    layer = nn.Linear(2, 2)
    model = nn.ModuleDict({"0": layer, "alias": layer, "1": nn.Linear(2, 2)})

    assert len(make(model, RANKED, following("1", "alias"))) == 2


def test_a_source_may_be_spelled_in_another_way(make, linears):
    entry = {"op_names": ["0"], "target_names": ["_output_"], "sparse_ratio": 0.5}

    assert len(make(linears(2), entry, following("1", "0", of="_output_0"))) == 2


def test_a_source_that_nothing_prunes_is_an_error(problems, linears):
    assert problems(linears(2), RANKED, following("1", "0", of="bias")) == [
        "pruning.config_list[1]: 1.weight: it is aligned with 0.bias, which no entry prunes; add it "
        "to an entry's targets, or leave 'weight' out with target_names"
    ]


def test_an_argument_name_is_no_target_name(problems, linears):
    entry = {**RANKED, "target_names": ["_input_"]}

    assert problems(linears(2), entry, following("1", "0", of="input")) == [
        "pruning.config_list[1]: 1.weight: it is aligned with 0.input, which no entry prunes; add "
        "it to an entry's targets, or leave 'weight' out with target_names"
    ]


def test_a_source_in_a_module_that_is_missing_is_an_error_with_the_nearest_name(problems):
    model = nn.ModuleDict({"conv1": nn.Linear(2, 2), "norm": nn.Linear(2, 2)})
    entry = {**RANKED, "op_names": ["conv1"]}

    assert problems(model, entry, following("norm", "conv_1")) == [
        (
            "pruning.config_list[1]: norm.weight: it is aligned with conv_1.weight, but "
            f"{no_module('conv_1')}; did you mean 'conv1'?"
        )
    ]


def test_the_bias_of_an_unpruned_weight_says_how_to_leave_it_out(problems):
    model = nn.Sequential(nn.Linear(2, 2))

    assert problems(model, {"op_names": ["0"], "target_names": ["bias"]}) == [
        "pruning.config_list[0]: 0.bias: it is aligned with 0.weight, which no entry prunes; add it "
        "to an entry's targets, or leave 'bias' out with target_names"
    ]


def test_a_source_in_another_stage_is_an_error(linears):
    stages = [
        {"algorithm": "element", "config_list": [RANKED]},
        {"algorithm": "channel", "config_list": [following("1", "0")]},
    ]
    with pytest.raises(tersely.PlanError) as caught:
        tersely.plan(linears(2), {"pruning": stages})

    assert str(caught.value) == (
        "pruning[1].config_list[0]: 1.weight: it is aligned with 0.weight, which "
        "pruning[0].config_list[0] (op_names: 0) prunes in another stage; a target follows one of "
        "its own stage"
    )


def test_a_circle_is_told_once(problems, linears):
    assert problems(linears(3), *(following(f"{n}", f"{(n + 1) % 3}") for n in range(3))) == [
        "pruning.config_list[0]: 0.weight: align forms a cycle: 0.weight -> 1.weight -> 2.weight "
        "-> 0.weight"
    ]


def test_a_target_that_follows_itself_is_a_circle(problems, linears):
    assert problems(linears(1), following("0", "0")) == [
        "pruning.config_list[0]: 0.weight: align forms a cycle: 0.weight -> 0.weight"
    ]


def test_what_leads_into_a_circle_is_no_part_of_it(problems, linears):
    found = problems(linears(3), following("0", "1"), following("1", "2"), following("2", "1"))

    assert found == [
        "pruning.config_list[1]: 1.weight: align forms a cycle: 1.weight -> 2.weight -> 1.weight"
    ]


def test_two_circles_are_two_problems(problems, linears):
    pairs = [("0", "1"), ("1", "0"), ("2", "3"), ("3", "2")]

    assert len(problems(linears(4), *(following(*pair) for pair in pairs))) == 2


@pytest.mark.parametrize("dims", [[2], [-3]])
def test_a_dimension_the_source_does_not_have_is_an_error(problems, linears, dims):
    assert problems(linears(2), RANKED, following("1", "0", dims=dims)) == [
        f"pruning.config_list[1]: 1.weight: align.dims {dims} is outside 0.weight, which has 2 "
        "dimensions"
    ]


def test_a_dimension_named_twice_is_an_error(problems, linears):
    assert problems(linears(2), RANKED, following("1", "0", dims=[0, -2])) == [
        "pruning.config_list[1]: 1.weight: align.dims [0, -2] names a dimension of 0.weight twice"
    ]


def test_more_dimensions_than_the_target_has_are_an_error(problems):
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))

    assert problems(model, RANKED, following("1", "0", target="bias", dims=[0, 1])) == [
        "pruning.config_list[1]: 1.bias: align.dims [0, 1] of 0.weight covers 2 dimensions, the "
        "target has 1; leave some out"
    ]


def test_lengths_that_differ_are_an_error(problems):
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(2, 5))

    assert problems(model, RANKED, following("1", "0")) == [
        (
            "pruning.config_list[1]: 1.weight: align.dims [0] of 0.weight has 3 positions, the "
            f"target has 5; {EQUAL_LENGTHS}"
        )
    ]


def test_a_negative_dimension_counts_from_the_end(make):
    model = nn.Sequential(nn.Linear(5, 3), nn.Linear(2, 5))

    assert len(make(model, RANKED, following("1", "0", dims=[-1]))) == 2


def test_the_bias_of_a_grouped_transposed_convolution_fits(make):
    model = nn.Sequential(nn.ConvTranspose2d(4, 6, 3, groups=2))

    assert len(make(model, {"op_names": ["0"], "sparse_ratio": 0.5}, algorithm="channel")) == 2


def test_the_length_of_an_activation_is_not_known_in_planning_where_no_layer_states_it(make):
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU())

    assert len(make(model, RANKED, following("1", "0", target="_output_"))) == 2


def test_an_output_with_other_channels_than_the_dimension_it_follows_is_an_error(problems):
    model = nn.Sequential(nn.ConvTranspose1d(2, 4, 2))
    entry = following("0", "0", target="_output_")

    assert problems(model, RANKED, entry) == [
        "pruning.config_list[1]: 0._output_: align.dims [0] of 0.weight has 2 positions, and 4 "
        "channels follow it; choose the dimension of 0.weight that makes them, of a transposed "
        "convolution [1]"
    ]


def test_an_output_follows_the_dimension_that_makes_its_channels(make):
    model = nn.Sequential(nn.ConvTranspose1d(2, 4, 2))

    assert len(make(model, RANKED, following("0", "0", target="_output_", dims=(1,)))) == 2
