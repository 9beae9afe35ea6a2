"""Inputs and outputs of every granularity and rank."""

import warnings

import pytest
import torch
from torch import nn

import tersely

CASES = {
    "rows": (lambda: nn.Linear(4, 2), (3, 4), (1, 4)),
    "tokens": (lambda: nn.Linear(4, 2), (2, 3, 4), (1, 1, 4)),
    "Conv1d": (lambda: nn.Conv1d(4, 2, 2), (2, 4, 8), (1, 4, 1)),
    "Conv1d unbatched": (lambda: nn.Conv1d(4, 2, 2), (4, 8), (1, 4, 1)),
    "Conv2d": (lambda: nn.Conv2d(4, 2, 2), (2, 4, 6, 6), (1, 4, 1, 1)),
    "Conv2d unbatched": (lambda: nn.Conv2d(4, 2, 2), (4, 6, 6), (1, 4, 1, 1)),
    "ConvTranspose2d": (lambda: nn.ConvTranspose2d(4, 2, 2), (2, 4, 6, 6), (1, 4, 1, 1)),
    "BatchNorm1d": (lambda: nn.BatchNorm1d(4), (5, 4), (1, 4)),
}


def quantized(make, shape, granularity, algorithm="ptq", targets=("_input_",), **entry):
    torch.manual_seed(0)
    model = nn.Sequential(make()).eval()
    x = torch.randn(shape)
    config = {"op_names": ["0"], "target_names": list(targets), "granularity": granularity}
    stage = {"algorithm": algorithm, "config_list": [{**config, **entry}]}
    session = tersely.attach(model, {"quantization": stage})
    session.calibrate([x])
    session.compress()
    return session, x


@pytest.mark.parametrize("algorithm", ["ptq", "qat", "lsq"])
@pytest.mark.parametrize("name", CASES)
def test_one_scale_for_each_channel(name, algorithm):
    make, shape, expected = CASES[name]
    session, x = quantized(make, shape, "per_channel", algorithm, quant_scheme="affine")
    found = session.qparams()["0"]["_input_"]
    session.model(x)

    assert found.scale.shape == expected
    if algorithm != "lsq":
        channel = expected.index(4)
        dim = channel if x.ndim == len(expected) else channel - 1
        low, high = (x.movedim(dim, 0).reshape(4, -1) for _ in range(2))
        reach = high.amax(1).clamp(min=0) - low.amin(1).clamp(max=0)
        torch.testing.assert_close(found.scale.flatten(), reach / 254)


@pytest.mark.parametrize("algorithm", ["ptq", "qat", "lsq", "dorefa", "bnn"])
@pytest.mark.parametrize("name", CASES)
def test_one_scale_for_all_values(name, algorithm):
    make, shape, _ = CASES[name]
    session, x = quantized(make, shape, "default", algorithm, ("_output_",))
    session.model(x)

    assert session.qparams()["0"]["_output_"].scale.shape == ()


@pytest.mark.parametrize("algorithm", ["ptq", "qat", "lsq"])
def test_blocks_of_channels(algorithm):
    make, shape, _ = CASES["rows"]
    session, x = quantized(make, shape, [2], algorithm)
    found = session.qparams()["0"]["_input_"]
    session.model(x)

    assert found.scale.shape == (1, 2)
    assert found.block_size == (-1, 2)
    if algorithm != "lsq":
        torch.testing.assert_close(
            found.scale.flatten(), x.abs().reshape(3, 2, 2).amax((0, 2)) / 127
        )


@pytest.mark.parametrize("algorithm", ["ptq", "qat"])
def test_each_token_has_a_range_of_its_own_at_every_call(algorithm):
    make, shape, _ = CASES["tokens"]
    session, x = quantized(make, shape, "per_token", algorithm)
    other = torch.tensor([[[1.27, 0.014, 0.0, 0.0]], [[12.7, 0.14, 0.0, 0.0]]])

    assert session.qparams() == {}
    # Steps of 0.01 and 0.1.
    weight, bias = session.model[0].weight, session.model[0].bias
    expected = torch.tensor([[[1.27, 0.01, 0.0, 0.0]], [[12.7, 0.1, 0.0, 0.0]]])
    torch.testing.assert_close(session.model(other), nn.functional.linear(expected, weight, bias))
    assert session.model(x).shape == (2, 3, 2)


@pytest.mark.parametrize("granularity", ["default", "per_channel", [2], "per_token"])
@pytest.mark.parametrize("algorithm", ["ptq", "qat", "lsq"])
def test_finalizing_keeps_what_is_computed(algorithm, granularity):
    make, shape, _ = CASES["tokens"]
    session, x = quantized(make, shape, granularity, algorithm, ("_input_", "_output_"))
    model = session.model
    expected = model(x)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        session.finalize()

    assert torch.equal(model(x), expected)
