"""Family plan: a model and a recipe, and the plan or its errors."""

import warnings

import pytest
import torch

import tersely
from tersely import PlanError


def planned(case, models):
    given = case["given"]
    device = "meta" if given.get("storage") is False else None
    model = models.build(given["model"], device=device)
    teacher = models.build(given["teacher"]) if "teacher" in given else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model, lambda: tersely.plan(model, given["recipe"], teacher=teacher)


def tells(target, expected):
    """Tell whether a planned target has every field that the case gives."""
    found = {
        "module": target.module,
        "target": target.target,
        "kind": target.kind,
        "method": target.method,
        "algorithm": target.algorithm,
        "entry": target.origin.path,
        "shared_with": list(target.shared_with),
    }
    return all(found[key] == value for key, value in expected.items())


def state(model):
    return {
        "types": [type(module) for module in model.modules()],
        "keys": [set(vars(module)) for module in model.modules()],
        "tensors": [(name, tensor.clone()) for name, tensor in model.state_dict().items()],
    }


def same(left, right):
    tensors = zip(left["tensors"], right["tensors"], strict=True)
    return (
        left["types"] == right["types"]
        and left["keys"] == right["keys"]
        and all(a[0] == b[0] and torch.equal(a[1], b[1]) for a, b in tensors)
    )


@pytest.mark.spec("plan")
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_plan(case, models, assert_mentions):
    expect = case["expect"]
    model, make = planned(case, models)
    if "errors" in expect:
        with pytest.raises(PlanError) as caught:
            make()
        assert_mentions(caught.value.problems, expect["errors"])
        return
    before = state(model) if expect.get("model_unchanged") else None
    names = [name for name, _ in model.named_parameters()]
    if case["given"].get("attach"):
        tersely.attach(model, make())
    plan = make()
    check_targets(plan, expect)
    check_findings(plan, expect)
    if before is not None:
        assert same(before, state(model))
    if expect.get("repeatable"):
        assert make() == plan
    if expect.get("parameter_names_unchanged"):
        assert [name for name, _ in model.named_parameters()] == names


def check_targets(plan, expect):
    if "selected" in expect:
        assert list(plan.selected) == expect["selected"]
    if "targets" not in expect:
        return
    targets = list(plan)
    if expect.get("targets_in_any_order"):
        targets.sort(key=lambda target: (target.module, target.target))
    assert len(targets) == len(expect["targets"]), [str(target.name) for target in targets]
    for target, expected in zip(targets, expect["targets"], strict=True):
        assert tells(target, expected), (target, expected)


def check_findings(plan, expect):
    if "unmatched" in expect:
        assert [one.path for one in plan.unmatched] == [one["path"] for one in expect["unmatched"]]
        for found, expected in zip(plan.unmatched, expect["unmatched"], strict=True):
            assert expected.get("near") is None or expected["near"] in found.near
    if "shadowed" in expect:
        found = [
            {
                "module": one.module,
                "target": one.target,
                "winner": one.winner.path,
                "loser": one.loser.path,
            }
            for one in plan.shadowed
        ]
        assert found == expect["shadowed"]
    if "skipped" in expect:
        assert [f"{one.module}.{one.target}" for one in plan.skipped] == expect["skipped"]
    for words in expect.get("hints", ()):
        assert any(all(repr(word) in hint for word in words) for hint in plan.hints), plan.hints
    if expect.get("hints") == []:
        assert not plan.hints


@pytest.mark.parametrize(
    ("entry", "times"),
    [
        ({"op_names": ["fc1", "nope"], "sparse_ratio": 0.5}, 1),
        ({"op_names": ["fc1"], "sparse_ratio": 0.5}, 0),
    ],
)
def test_what_matches_nothing_is_warned_about_once(entry, times, models):
    shapes = {"weight": {"shape": [4, 4]}, "bias": {"shape": [4]}}
    model = models.build({"modules": [{"name": "fc1", "type": "Linear", "parameters": shapes}]})
    recipe = {"pruning": {"algorithm": "level", "config_list": [entry]}}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        tersely.plan(model, recipe)
    assert len(caught) == times
