"""Family holding: where masks take effect, and what becomes of dense values (rules B9.5 to B9.7)."""

import pytest
import torch

import tersely


@pytest.mark.spec("holding")
def test_holding(case, models):
    given = case["given"]
    weight = {"weight": {"values": given["weight"]}}
    model = models.build({"modules": [{"name": "layer", "type": "Linear", "parameters": weight}]})
    entry = {"op_names": ["layer"], "target_names": ["weight"], "sparse_ratio": 0.5}
    stage = {"algorithm": "level", "hold": given["hold"], "config_list": [entry]}
    session = tersely.attach(model, {"pruning": stage})
    parameter = dict(model.named_parameters())["layer.weight"]
    session.set_masks({"layer": {"weight": torch.tensor(given["mask"], dtype=torch.bool)}})
    if "loaded" in given:
        model.load_state_dict({"layer.weight": torch.tensor(given["loaded"])}, strict=False)
    if "moved" in given:
        with torch.no_grad():
            parameter.copy_(torch.tensor(given["moved"]))
        session.step()
    if "later" in given:
        session.set_masks({"layer": {"weight": torch.tensor(given["later"], dtype=torch.bool)}})
    assert parameter.tolist() == case["expect"]["parameter"]
    session.detach()
    assert parameter.tolist() == case["expect"]["detached"]
