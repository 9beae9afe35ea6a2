"""Invariant 7: tied parameters are one target with one mask, and stay tied; so do shared modules."""

import copy

import pytest
import torch
from messages.planning import PLAN_AGAIN
from torch import nn

import tersely


class Language(nn.Module):
    """An embedding whose table is also the output layer's weight."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(8, 4)
        self.head = nn.Linear(4, 8, bias=False)
        self.head.weight = self.table.weight

    def forward(self, tokens):
        return self.head(self.table(tokens))


class Twice(nn.Module):
    """Two linear layers with one weight."""

    def __init__(self):
        super().__init__()
        self.left = nn.Linear(4, 4)
        self.right = nn.Linear(4, 4)
        self.right.weight = self.left.weight

    def forward(self, value):
        return self.right(self.left(value))


MODELS = pytest.mark.parametrize(
    ("build", "first", "second", "value"),
    [
        (Language, "table", "head", torch.tensor([1, 2])),
        (Twice, "left", "right", torch.ones(2, 4)),
    ],
    ids=["embedding_and_linear", "two_linears"],
)
ENTRY = {"op_names_re": [".+"], "target_names": ["weight"], "sparse_ratio": 0.5}


@MODELS
def test_a_tied_parameter_is_one_target_with_two_names(build, first, second, value, prune):
    session = prune(build(), ENTRY)
    (target,) = session.plan
    assert target.name == f"{first}.weight"
    assert target.shared_with == (f"{second}.weight",)
    assert list(session.masks()) == [first]


@MODELS
def test_every_owner_sees_the_same_mask(build, first, second, value, prune):
    model = build()
    prune(model, ENTRY)
    one, other = model.get_submodule(first), model.get_submodule(second)
    assert int((one.weight == 0).sum()) == one.weight.numel() // 2
    assert torch.equal(one.weight, other.weight)


@MODELS
def test_a_tied_target_is_planned_once_whoever_is_named(build, first, second, value, prune):
    model = build()
    session = prune(model, {"op_names": [second], "target_names": ["weight"], "sparse_ratio": 0.5})
    assert list(session.masks()) == [second]
    assert torch.equal(model.get_submodule(first).weight, model.get_submodule(second).weight)


@pytest.mark.parametrize("end", ["finalize", "detach"])
@MODELS
def test_parameters_stay_tied_after_the_session(build, first, second, value, prune, end):
    model = build()
    raw = model.get_submodule(first).weight
    session = prune(model, ENTRY)
    getattr(session, end)()
    assert model.get_submodule(first).weight is raw
    assert model.get_submodule(second).weight is raw


@MODELS
def test_finalizing_masks_a_tied_parameter_once(build, first, second, value, prune):
    model = build()
    entry = {**ENTRY, "target_settings": {"weight": {"apply_method": "add", "mask_value": -5}}}
    session = prune(model, entry)
    expected = model.get_submodule(second).weight.detach().clone()
    session.finalize()
    assert torch.equal(model.get_submodule(second).weight, expected)


@MODELS
def test_parameters_stay_tied_in_a_deep_copy(build, first, second, value, prune):
    model = build()
    prune(model, ENTRY)
    other = copy.deepcopy(model)
    assert torch.equal(other(value), model(value))
    raw = other.get_submodule(first)._parameters["weight"]
    assert other.get_submodule(second)._parameters["weight"] is raw


@MODELS
def test_masks_stay_equal_after_a_change_of_dtype_and_another_compress(
    build, first, second, value, prune
):
    model = build()
    session = prune(model, ENTRY)
    model.double()
    with torch.no_grad():
        model.get_submodule(first)._parameters["weight"].mul_(torch.rand(()))
    session.compress()
    assert torch.equal(model.get_submodule(first).weight, model.get_submodule(second).weight)
    assert model.get_submodule(second).weight.dtype is torch.float64


def test_parameters_tied_under_two_names_are_one_target(prune):
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Parameter(torch.tensor([1.0, -3.0, 2.0, 4.0]))
            self.inner = nn.Module()
            self.inner.matrix = self.table

    model = Odd()
    prune(model, {"op_names": [""], "target_names": ["table"], "sparse_ratio": 0.5})
    assert model.table.tolist() == [0.0, -3.0, 0.0, 4.0]
    assert model.inner.matrix.tolist() == [0.0, -3.0, 0.0, 4.0]


def test_a_shared_module_is_one_target(prune):
    layer = nn.Linear(4, 4, bias=False)
    model = nn.Sequential(layer, nn.ReLU(), layer)
    session = prune(model, {"op_types": ["Linear"], "sparse_ratio": 0.5})
    assert list(session.masks()) == ["0"]
    assert session.plan.targets[0].shared_with == ("2.weight",)
    session.finalize()
    assert model[0] is model[2]
    assert int((model[2].weight == 0).sum()) == 8


def test_a_shared_module_may_be_named_by_any_of_its_names(prune):
    layer = nn.Linear(4, 4, bias=False)
    model = nn.Sequential(layer, nn.ReLU(), layer)
    session = prune(model, {"op_names": ["2"], "sparse_ratio": 0.5})
    assert list(session.masks()) == ["0"]


def test_an_align_may_name_the_other_owner_of_a_tied_parameter(prune):
    model = Twice()
    bias = {"align": {"module_name": "left", "target_name": "weight", "dims": [0]}}
    session = prune(
        model,
        {"op_names": ["left"], "target_names": ["weight"], "sparse_ratio": 0.5},
        {"op_names": ["right"], "target_names": ["bias"], "target_settings": {"bias": bias}},
        algorithm="toy_rows",
    )
    rows = session.masks()["left"]["weight"].any(1)
    assert torch.equal(session.masks()["right"]["bias"], rows)


def test_a_plan_of_a_tied_model_does_not_fit_an_untied_one():
    plan = tersely.plan(Twice(), {"pruning": {"algorithm": "toy", "config_list": [ENTRY]}})
    untied = Twice()
    untied.right.weight = nn.Parameter(untied.left.weight.detach().clone())
    with pytest.raises(tersely.AttachError) as caught:
        tersely.attach(untied, plan)
    assert str(caught.value) == (
        "the plan has left.weight shared with right.weight, in the model it is shared with "
        f"nothing; {PLAN_AGAIN}"
    )


def test_a_plan_of_an_untied_model_does_not_fit_a_tied_one():
    untied = Twice()
    untied.right.weight = nn.Parameter(untied.left.weight.detach().clone())
    plan = tersely.plan(untied, {"pruning": {"algorithm": "toy", "config_list": [ENTRY]}})
    with pytest.raises(tersely.AttachError) as caught:
        tersely.attach(Twice(), plan)
    assert str(caught.value) == (
        "the plan has left.weight shared with nothing, in the model it is shared with "
        f"right.weight; {PLAN_AGAIN}"
    )
