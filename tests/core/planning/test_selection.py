"""Which modules entries select, and what is said about selectors that miss."""

import pytest
from messages.planning import NO_SUCH_NAME, NO_SUCH_TYPE
from torch import nn

BY_OUTPUT = {"method": "distillation"}  # any module has an output, so nothing else matters


@pytest.fixture
def selected(make, net):
    def selected(model=net, **entry):
        return make(model, entry, **BY_OUTPUT).selected

    return selected


@pytest.fixture
def unmatched(make, net):
    def unmatched(model=net, **entry):
        return [str(one) for one in make(model, entry, **BY_OUTPUT).unmatched]

    return unmatched


def test_names_select_in_the_order_of_the_model(selected):
    assert selected(op_names=["conv", "fc1"]) == ("fc1", "conv")


def test_names_and_patterns_unite(selected):
    assert selected(op_names=["bn"], op_names_re=["fc"]) == ("fc1", "fc10", "bn")


def test_types_intersect_with_names(selected):
    assert selected(op_names=["bn", "fc1"], op_types=["Linear", "ReLU"]) == ("fc1",)


def test_types_alone_select_every_module_of_the_type(selected):
    assert selected(op_types=["Linear", "ReLU"]) == ("fc1", "fc10", "act")


def test_a_dotted_type_is_found_by_the_path_people_write(selected):
    assert selected(op_types=["torch.nn.Linear"]) == ("fc1", "fc10")


def test_a_dotted_type_is_found_by_the_path_it_was_defined_under(selected):
    assert selected(op_types=["torch.nn.modules.linear.Linear"]) == ("fc1", "fc10")


def test_a_subclass_is_another_type(selected):
    class Special(nn.Linear):
        pass

    model = nn.Sequential(nn.Linear(2, 2), Special(2, 2))

    assert selected(model, op_types=["Linear"]) == ("0",)


def test_the_root_can_be_selected_by_its_empty_name(selected):
    assert selected(op_names_re=["$"]) == ("",)


def test_every_kind_of_exclude_takes_out(selected):
    found = selected(
        op_names_re=[".+"],
        exclude_op_names=["fc1"],
        exclude_op_names_re=["conv"],
        exclude_op_types=["ReLU"],
    )

    assert found == ("fc10", "bn")


def test_a_shared_module_is_one_module_under_its_first_name(selected):
    layer = nn.Linear(2, 2)
    model = nn.ModuleDict({"first": layer, "second": layer})

    assert selected(model, op_names=["second"]) == ("first",)


def test_a_shared_module_left_out_by_one_name_is_left_out(selected):
    layer = nn.Linear(2, 2)
    model = nn.ModuleDict({"first": layer, "second": layer, "third": nn.Linear(2, 2)})

    assert selected(model, op_types=["Linear"], exclude_op_names=["second"]) == ("third",)


def test_the_origin_tells_the_selector_that_came_first(make, net):
    plan = make(net, {"op_names": ["fc1"], "op_names_re": ["fc"]}, **BY_OUTPUT)

    assert [str(target.origin) for target in plan] == [
        "distillation.config_list[0] (op_names: fc1)",
        "distillation.config_list[0] (op_names_re: fc)",
    ]


def test_a_missing_name_is_told_with_the_nearest_one(unmatched):
    assert unmatched(op_names=["fc1", "con"]) == [
        f"distillation.config_list[0].op_names[1]: 'con': {NO_SUCH_NAME}; did you mean 'conv'?"
    ]


def test_a_name_like_no_other_gets_no_suggestion(unmatched):
    assert unmatched(op_names=["fc1", "embedding"]) == [
        f"distillation.config_list[0].op_names[1]: 'embedding': {NO_SUCH_NAME}"
    ]


def test_a_pattern_that_matches_nothing_is_told(unmatched):
    assert unmatched(op_names=["fc1"], op_names_re=["c1"]) == [
        "distillation.config_list[0].op_names_re[0]: 'c1': no module name starts with a match of "
        "this pattern; did you mean 'fc1' or 'fc10'?"
    ]


def test_a_type_that_is_absent_is_told_with_the_nearest_one(unmatched):
    assert unmatched(op_types=["Linear", "Conv3d"]) == [
        (
            f"distillation.config_list[0].op_types[1]: 'Conv3d': {NO_SUCH_TYPE}; did you mean "
            "'Conv2d'?"
        )
    ]


def test_excludes_that_take_nothing_out_are_told(unmatched):
    found = unmatched(
        op_names=["fc1"],
        exclude_op_names=["x"],
        exclude_op_names_re=["y"],
        exclude_op_types=["Zero"],
    )

    assert found == [
        f"distillation.config_list[0].exclude_op_names[0]: 'x': {NO_SUCH_NAME}",
        "distillation.config_list[0].exclude_op_names_re[0]: 'y': no module name starts with a "
        "match of this pattern",
        f"distillation.config_list[0].exclude_op_types[0]: 'Zero': {NO_SUCH_TYPE}",
    ]


def test_an_entry_that_selects_nothing_is_told_besides(unmatched):
    assert unmatched(op_names=["nope"])[-1] == (
        "distillation.config_list[0]: the entry selects no module"
    )


def test_an_entry_whose_selectors_exclude_each_other_is_told(unmatched):
    assert unmatched(op_names=["fc1"], op_types=["ReLU"]) == [
        "distillation.config_list[0]: the entry selects no module; each selector matches modules, "
        "but no module passes all of them"
    ]


def test_a_plain_word_that_selects_longer_names_gives_a_hint(make, net):
    plan = make(net, {"op_names_re": ["fc1"]}, **BY_OUTPUT)

    assert plan.hints == (
        "distillation.config_list[0].op_names_re: 'fc1' also selects 'fc10', because patterns match "
        "from the start and need not reach the end; write 'fc1$' for that name alone",
    )


def test_the_hint_counts_further_names(make):
    model = nn.ModuleDict({name: nn.ReLU() for name in ("fc1", "fc10", "fc11", "fc12")})
    plan = make(model, {"op_names_re": ["fc1"]}, **BY_OUTPUT)

    assert "'fc1' also selects 'fc10' and 2 more, because" in plan.hints[0]


def test_longer_names_that_are_left_out_again_give_no_hint(make, net):
    plan = make(net, {"op_names_re": ["fc1"], "exclude_op_names": ["fc10"]}, **BY_OUTPUT)

    assert plan.hints == ()


def test_what_lies_inside_a_module_is_no_longer_name(make):
    model = nn.ModuleDict({"layer1": nn.Sequential(nn.ReLU())})
    plan = make(model, {"op_names_re": ["layer1"]}, **BY_OUTPUT)

    assert plan.selected == ("layer1", "layer1.0")
    assert plan.hints == ()


def test_near_names_are_searched_for_the_first_few_misses_only(make, net):
    names = [f"fc1{'x' * (number % 2)}{number + 20}" for number in range(30)]
    plan = make(net, *({"op_names": [name]} for name in names), **BY_OUTPUT)
    missing = [one for one in plan.unmatched if one.value]

    assert len(missing) == 30
    assert all(one.near for one in missing[:20])
    assert not any(one.near for one in missing[20:])
