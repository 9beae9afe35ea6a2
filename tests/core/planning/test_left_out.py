"""Hints on what a stage leaves out although its types suggest otherwise (rule S7)."""

import sys

import pytest
import torch
from messages.planning import NO_SUCH_TYPE
from torch import nn

import tersely


class Conv2dSame(nn.Conv2d):
    """A convolution of another type, as timm has it."""


class Experts(nn.Module):
    """Experts in one parameter, as Transformers 5 has them."""

    def __init__(self, experts=4):
        super().__init__()
        self.up = nn.Parameter(torch.randn(experts, 8, 4))


def planned(model, *entries):
    recipe = {"pruning": {"algorithm": "element", "config_list": list(entries)}}
    return tersely.plan(model, recipe)


def test_modules_of_a_subclass_are_counted_in_one_hint():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), Conv2dSame(2, 2, 3), Conv2dSame(2, 2, 3))
    plan = planned(model, {"op_types": ["torch.nn.Conv2d"], "sparse_ratio": 0.5})
    assert plan.hints == (
        "pruning: 2 modules are not selected, because op_types matches exact types: 2 of "
        "'Conv2dSame', a subclass of 'torch.nn.Conv2d' ('1' and 1 more); to include them, add "
        "these types to op_types, with target_names",
    )


def test_only_modules_that_names_allow_are_counted():
    model = nn.ModuleDict({"a": Conv2dSame(1, 2, 3), "b": nn.Conv2d(2, 2, 3)})
    plan = planned(model, {"op_names_re": ["b$"], "op_types": ["Conv2d"], "sparse_ratio": 0.5})
    assert plan.hints == ()


def test_a_subclass_that_is_named_beside_its_base_is_no_hint():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), Conv2dSame(2, 2, 3))
    types = ["Conv2d", "Conv2dSame"]
    plan = planned(model, {"op_types": types, "target_names": ["weight"], "sparse_ratio": 0.5})
    assert plan.hints == ()


def test_a_subclass_that_is_excluded_by_name_is_no_hint():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), Conv2dSame(2, 2, 3))
    entry = {"op_types": ["Conv2d"], "exclude_op_names": ["1"], "sparse_ratio": 0.5}
    assert planned(model, entry).hints == ()


def test_the_class_of_all_modules_is_no_base_that_anyone_means():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Linear(2, 2))
    entry = {"op_types": ["Module", "Conv2d"], "sparse_ratio": 0.5}
    with pytest.warns(UserWarning, match=f"'Module': {NO_SUCH_TYPE}"):
        plan = planned(model, entry)
    assert plan.hints == ()


def test_two_entries_of_a_stage_make_one_hint():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Linear(2, 2), Conv2dSame(2, 2, 3))
    entries = [{"op_types": [name], "sparse_ratio": 0.5} for name in ("Conv2d", "Linear")]
    assert len(planned(model, *entries).hints) == 1


def test_a_tied_parameter_that_is_excluded_says_by_what():
    model = nn.ModuleDict({"emb": nn.Embedding(8, 4), "head": nn.Linear(4, 8, bias=False)})
    model["head"].weight = model["emb"].weight
    model["fc"] = nn.Linear(4, 4)
    entry = {"op_types": ["Linear"], "exclude_op_types": ["Embedding"], "sparse_ratio": 0.5}
    plan = planned(model, entry)
    assert [target.name for target in plan] == ["fc.weight", "fc.bias"]
    assert str(plan.skipped[0]) == (
        "head.weight is skipped: it is emb.weight, which the entry leaves out "
        "(exclude_op_types: Embedding)"
    )


def test_an_excluded_module_without_ties_changes_nothing():
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    entry = {"op_types": ["Linear"], "exclude_op_names": ["0"], "sparse_ratio": 0.5}
    plan = planned(model, entry)
    assert [target.name for target in plan] == ["1.weight"]
    assert plan.hints == ()


def test_a_shared_module_that_is_excluded_by_one_name_says_so():
    shared = nn.Linear(4, 4)
    model = nn.Sequential(shared, nn.Linear(4, 4), shared)
    entry = {"op_types": ["Linear"], "exclude_op_names": ["2"], "sparse_ratio": 0.5}
    assert planned(model, entry).hints == (
        "pruning.config_list[0]: exclude_op_names: 2 matches '2', which is one module under the "
        "names '0', '2'; it is left out under all of them",
    )


def test_fused_experts_are_named_with_their_share():
    model = nn.Sequential(nn.Linear(4, 8, bias=False), Experts())
    (hint,) = planned(model, {"op_types": ["Linear"], "sparse_ratio": 0.5}).hints
    assert hint.startswith("pruning: 80% of the parameters are not targets of this stage.")
    assert hint.endswith(
        "does not select: '1.up'; select them by their types, 'Experts', with target_names"
    )


def test_at_half_of_the_parameters_experts_are_not_named():
    model = nn.Sequential(nn.Linear(4, 8, bias=False), Experts(experts=2))
    model.append(nn.Linear(4, 8, bias=False))
    assert planned(model, {"op_types": ["Linear"], "sparse_ratio": 0.5}).hints == ()


@pytest.mark.parametrize("layer", [nn.Conv1d(8, 8, 3), nn.Bilinear(4, 4, 8)])
def test_layers_whose_weights_have_three_dimensions_are_not_named(layer):
    model = nn.Sequential(nn.Linear(4, 8, bias=False), layer)
    assert planned(model, {"op_types": ["Linear"], "sparse_ratio": 0.5}).hints == ()


def test_experts_that_another_entry_selects_are_not_named(monkeypatch):
    # Whether an algorithm can divide experts is asked of its class.
    place = sys.modules["stand_ins_of_planning_tests"]
    monkeypatch.setattr(place, "Nothing", type("Nothing", (), {}), raising=False)
    model = nn.Sequential(nn.Linear(4, 8, bias=False), Experts())
    entries = [
        {"op_types": ["Linear"], "sparse_ratio": 0.5},
        {"op_types": ["Experts"], "target_names": ["up"], "sparse_ratio": 0.5},
    ]
    assert planned(model, *entries).hints == ()


def test_many_experts_are_counted():
    model = nn.Sequential(nn.Linear(4, 8, bias=False), *(Experts() for _ in range(15)))
    (hint,) = planned(model, {"op_types": ["Linear"], "sparse_ratio": 0.5}).hints
    assert "'12.up' and 3 more; select" in hint
