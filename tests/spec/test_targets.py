"""Family targets: inputs and outputs by address, however a module is called."""

import pytest
import torch

import tersely


def argument(value):
    return torch.tensor(value, dtype=torch.float32) if isinstance(value, list) else value


def run_call(model, call):
    arguments = [argument(one) for one in call.get("args", ())]
    keywords = {name: argument(one) for name, one in call.get("kwargs", {}).items()}
    return model.m(*arguments, **keywords)


def written(result):
    """Write a result as cases do."""
    if isinstance(result, torch.Tensor):
        return result.tolist()
    if isinstance(result, dict):
        return {"mapping": {key: written(one) for key, one in result.items()}}
    if hasattr(result, "_asdict"):
        return {"named_tuple": {key: written(one) for key, one in result._asdict().items()}}
    kind = {tuple: "tuple", list: "list"}[type(result)]
    return {kind: [written(one) for one in result]}


@pytest.mark.spec("targets")
def test_targets(case, models):
    given = case["given"]
    model = models.build({"modules": [{"name": "m", "type": given["module"]}]})
    entry = {
        "op_names": ["m"],
        "target_names": [given["target"]],
        "sparse_ratio": given["sparse_ratio"],
    }
    session = tersely.attach(model, {"pruning": {"algorithm": "level", "config_list": [entry]}})
    session.calibrate(given["calibration"], forward=run_call)
    session.compress()
    results = [written(run_call(model, call)) for call in given["calls"]]
    assert results == case["expect"]["results"]
