"""Family holding: where masks take effect, and what becomes of dense values (rules B9.5 to B9.9)."""

import pytest
import torch

import tersely


@pytest.mark.spec("holding")
def test_holding(case, models, own_algorithms):
    given = case["given"]
    is_scripted = "from_zero" in given

    def mask(session, kept):
        kept = torch.tensor(kept, dtype=torch.bool)
        if is_scripted:
            own_algorithms.Scripted.kept = kept
            session.compress()
        else:
            session.set_masks({"layer": {"weight": kept}})

    weight = {"weight": {"values": given["weight"]}}
    model = models.build({"modules": [{"name": "layer", "type": "Linear", "parameters": weight}]})
    entry = {"op_names": ["layer"], "target_names": ["weight"], "sparse_ratio": 0.5}
    algorithm = "scripted" if is_scripted else "level"
    stage = {"algorithm": algorithm, "hold": given["hold"], "config_list": [entry]}
    session = tersely.attach(model, {"pruning": stage})
    parameter = dict(model.named_parameters())["layer.weight"]
    mask(session, given["mask"])
    if "loaded" in given:
        model.load_state_dict({"layer.weight": torch.tensor(given["loaded"])}, strict=False)
    if "moved" in given:
        with torch.no_grad():
            parameter.copy_(torch.tensor(given["moved"]))
        session.step()
    if "later" in given:
        mask(session, given["later"])
    assert parameter.tolist() == case["expect"]["parameter"]
    session.detach()
    assert parameter.tolist() == case["expect"]["detached"]
