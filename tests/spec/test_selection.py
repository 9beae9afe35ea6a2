"""Family selection: a model and one entry, and the modules it selects."""

import warnings

import pytest

import tersely


@pytest.mark.spec("selection")
def test_selection(case, models):
    given, expect = case["given"], case["expect"]
    model = models.build(given["model"])
    if "instrumented" in given:
        names = given["instrumented"]
        stage = {"algorithm": "level", "config_list": [{"op_names": names, "sparse_ratio": 0.5}]}
        tersely.attach(model, {"pruning": stage})
    # Any module can be distilled, so this kind of stage shows selection and nothing else.
    recipe = {"distillation": {"config_list": [given["entry"]]}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plan = tersely.plan(model, recipe)
    assert list(plan.selected) == expect["selected"]
    if "unmatched" in expect:
        entry = "distillation.config_list[0]"
        below = [one.path.removeprefix(entry).removeprefix(".") for one in plan.unmatched]
        assert below == expect["unmatched"]
