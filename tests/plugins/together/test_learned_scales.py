"""Learned scales of every output channel."""

import pytest
import torch

import tersely


@pytest.mark.parametrize("name", ["lsq", "lsq_plus"])
@pytest.mark.parametrize("dtype", ["int8", "int4"])
@pytest.mark.parametrize("scheme", ["symmetric", "affine"])
@pytest.mark.parametrize("magnitude", [1e-4, 1e-2, 1.0, 100.0])
def test_defaults_train_weights_of_any_magnitude(name, dtype, scheme, magnitude):
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Linear(16, 32), torch.nn.ReLU(), torch.nn.Linear(32, 4, bias=False)
    )
    for parameter in model.parameters():
        parameter.data.mul_(magnitude)
    inputs, wanted = torch.randn(64, 16), torch.randn(64, 4) * magnitude**2
    entry = {
        "op_types": ["Linear"],
        "target_names": ["_input_", "weight"],
        "quant_dtype": dtype,
        "quant_scheme": scheme,
        "target_settings": {"weight": {"granularity": "per_channel"}},
    }
    session = tersely.attach(model, {"quantization": {"algorithm": name, "config_list": [entry]}})
    session.calibrate([inputs])
    session.compress()
    before = {key: found["weight"].scale.clone() for key, found in session.qparams().items()}

    for _ in range(30):
        loss = torch.nn.functional.mse_loss(model(inputs), wanted) / magnitude**4
        session.total_loss(loss).backward()
        session.step()
        model.zero_grad()

    for key, found in session.qparams().items():
        change = found["weight"].scale / before[key]
        assert change.min() > 0.9
        assert change.max() < 1.1
        assert not torch.equal(change, torch.ones_like(change))
