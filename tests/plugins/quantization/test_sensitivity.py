"""Bit widths one layer at a time: calls of the layer alone show what the whole model shows."""

import pytest
import torch
from torch import nn

import tersely
from tersely.searching.output_error import DenseOutputs

STAGE = {
    "config_list": [
        {
            "op_types": ["Linear"],
            "target_names": ["weight", "_input_"],
            "quant_dtype": "int8",
            "target_settings": {"_input_": {"quant_dtype": "uint8", "quant_scheme": "affine"}},
        }
    ]
}


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 3))


@pytest.mark.parametrize("algorithm", ["ptq", "gptq", "adaround"])
def test_a_layer_alone_costs_what_it_costs_in_the_whole_model(
    algorithm: str, model: nn.Module
) -> None:
    batches = list(torch.randn(3, 16, 6, generator=torch.Generator().manual_seed(1)))
    stage = {"algorithm": algorithm, **STAGE}
    if algorithm != "ptq":
        stage["config_list"] = [{"op_types": ["Linear"], "target_names": ["weight"]}]

    found = tersely.sensitivity(model, {"quantization": stage}, data=batches, bits=[8, 3])

    dense = DenseOutputs.of(model.eval(), batches)
    assert [(one.layer, one.level) for one in found] == [
        (layer, bits) for layer in ("0", "2", "4") for bits in (8, 3)
    ]
    for one in found:
        entry = {**stage["config_list"][0], "op_types": None, "op_names": [one.layer]}
        if algorithm == "ptq":
            settings = {**entry["target_settings"], "weight": {"quant_dtype": f"int{one.level}"}}
            entry["target_settings"] = settings
        else:
            entry["quant_dtype"] = f"int{one.level}"
        session = tersely.quantize(model, [entry], algorithm=algorithm, data=batches)
        assert one.value == pytest.approx(dense.error_of(model), rel=1e-4)
        session.detach()
