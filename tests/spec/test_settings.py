"""Family settings: one module and one entry, and the settings of its targets."""

import pytest

import tersely

ALGORITHMS = {"pruning": "level", "quantization": "ptq"}


@pytest.fixture
def registered(case):
    """Register the module settings of a case for the time of one test."""
    registry = tersely.registry()
    settings = case["given"].get("register", [])
    snapshot = registry._snapshot
    for setting in settings:
        tersely.register_module_setting(tersely.ModuleSetting(**setting))
    yield
    if settings:
        # There is no public way to take a module setting back, and tests must not leave any.
        registry._publish(snapshot.plugins, snapshot.user_settings)


def without_nulls(value):
    if isinstance(value, dict):
        return {key: without_nulls(one) for key, one in value.items() if one is not None}
    return value


@pytest.mark.spec("settings")
@pytest.mark.usefixtures("registered")
def test_settings(case, models):
    given = case["given"]
    method = given["method"]
    module = {"name": "layer", **given["module"]}
    other = {
        "name": "other",
        "type": "Linear",
        "parameters": {"weight": {"shape": [4, 8]}, "bias": {"shape": [4]}},
    }
    model = models.build({"modules": [module, other]})
    stage = {"config_list": [{"op_names": ["layer"], **given["entry"]}]}
    if method == "pruning":
        beside = {"op_names": ["other"], "target_names": ["weight"], "sparse_ratio": 0.5}
        stage["config_list"].append(beside)
    if method in ALGORITHMS:
        stage["algorithm"] = ALGORITHMS[method]
    plan = tersely.plan(model, {method: stage})
    found = {
        one.target: without_nulls(one.setting.to_dict()) for one in plan if one.module == "layer"
    }
    assert found == case["expect"]["settings"]
