"""Family apply: a tensor and its mask, and what the module computes with."""

import contextlib

import pytest
import torch

import tersely


@pytest.mark.spec("apply")
def test_apply(case, models):
    given = case["given"]
    weight = {"weight": {"values": given["tensor"]}}
    model = models.build({"modules": [{"name": "layer", "type": "Layer", "parameters": weight}]})
    keys = {key: given.get(key) for key in ("apply_method", "mask_value")}
    entry = {"op_names": ["layer"], "target_settings": {"weight": {"sparse_ratio": 0, **keys}}}
    session = tersely.attach(model, {"pruning": {"algorithm": "level", "config_list": [entry]}})
    session.compress()
    tensors, data = session.state()
    kept = torch.tensor(given["kept"], dtype=torch.bool)
    session.restore(dict.fromkeys(tensors, kept), data)
    if "loaded" in given:
        mask = torch.tensor(models.nested(given["loaded"]))
        state = {key: mask if "mask" in key else value for key, value in model.state_dict().items()}
        refused = pytest.raises(tersely.SessionFileError, match=r"layer\.weight")
        with refused if case["expect"].get("refused") else contextlib.nullcontext():
            model.load_state_dict(state)
    model.train(given.get("training", False))
    expected = torch.tensor(case["expect"]["result"], dtype=torch.float32)
    torch.testing.assert_close(model.layer.weight.detach(), expected)
