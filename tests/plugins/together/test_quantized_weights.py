"""Weights of every type, scheme and granularity: integers, scales and what is computed."""

import pytest
import torch
from torch import nn

import tersely

DTYPES = [
    *(f"int{bits}" for bits in range(2, 17)),
    *(f"uint{bits}" for bits in range(1, 17)),
    "float8_e4m3fn",
    "float8_e5m2",
]
LAYERS = {
    "Linear": lambda: nn.Linear(8, 4),
    "Conv1d": lambda: nn.Conv1d(4, 6, 2),
    "Conv2d": lambda: nn.Conv2d(4, 6, 2),
    "ConvTranspose2d": lambda: nn.ConvTranspose2d(4, 6, 2),
    "Embedding": lambda: nn.Embedding(10, 8),
}
GRANULARITIES = {
    "default": "default",
    "per_channel": "per_channel",
    "out_channel": "out_channel",
    "in_channel": "in_channel",
    "block": [2, 2],
    "group": {"group": 2},
}
SHAPES = {
    ("Linear", "default"): (),
    ("Linear", "per_channel"): (4, 1),
    ("Linear", "out_channel"): (4, 1),
    ("Linear", "in_channel"): (1, 8),
    ("Linear", "block"): (2, 4),
    ("Linear", "group"): (4, 4),
    ("Conv1d", "default"): (),
    ("Conv1d", "per_channel"): (6, 1, 1),
    ("Conv1d", "out_channel"): (6, 1, 1),
    ("Conv1d", "in_channel"): (1, 4, 1),
    ("Conv1d", "block"): (6, 2, 1),
    ("Conv1d", "group"): (6, 2, 1),
    ("Conv2d", "default"): (),
    ("Conv2d", "per_channel"): (6, 1, 1, 1),
    ("Conv2d", "out_channel"): (6, 1, 1, 1),
    ("Conv2d", "in_channel"): (1, 4, 1, 1),
    ("Conv2d", "block"): (6, 4, 1, 1),
    ("Conv2d", "group"): (6, 2, 1, 1),
    ("ConvTranspose2d", "default"): (),
    # The output channels of a transposed convolution and of an embedding are dimension 1.
    ("ConvTranspose2d", "per_channel"): (1, 6, 1, 1),
    ("ConvTranspose2d", "out_channel"): (4, 1, 1, 1),
    ("ConvTranspose2d", "in_channel"): (1, 6, 1, 1),
    ("ConvTranspose2d", "block"): (4, 6, 1, 1),
    ("ConvTranspose2d", "group"): (2, 6, 1, 1),
    ("Embedding", "default"): (),
    ("Embedding", "per_channel"): (1, 8),
    ("Embedding", "out_channel"): (10, 1),
    ("Embedding", "in_channel"): (1, 8),
    ("Embedding", "block"): (5, 4),
    ("Embedding", "group"): (5, 8),
}


def quantized(layer, granularity, dtype, scheme, algorithm="ptq"):
    torch.manual_seed(0)
    model = nn.Sequential(LAYERS[layer]())
    entry = {
        "op_names": ["0"],
        "target_names": ["weight"],
        "quant_dtype": dtype,
        "quant_scheme": scheme,
        "granularity": GRANULARITIES[granularity],
    }
    stage = {"algorithm": algorithm, "config_list": [entry]}
    session = tersely.attach(model, {"quantization": stage})
    session.compress()
    return session


@pytest.mark.parametrize("scheme", ["symmetric", "affine"])
@pytest.mark.parametrize(("layer", "granularity"), SHAPES)
def test_integers_read_back_are_the_weight_for_every_type(layer, granularity, scheme):
    for dtype in DTYPES:
        session = quantized(layer, granularity, dtype, scheme)
        module = session.model[0]
        found = session.integer_weights()["0"]["weight"]
        qparams = session.qparams()["0"]["weight"]
        weight = module.weight.detach().clone()

        assert torch.equal(found.dequantize(), weight), dtype
        assert qparams.scale.shape == SHAPES[layer, granularity], dtype
        assert qparams.zero_point.shape == qparams.scale.shape
        lowest, highest = found.values.float().min(), found.values.float().max()
        assert qparams.quant_min <= lowest, dtype
        assert highest <= qparams.quant_max, dtype
        session.finalize()
        assert torch.equal(module.weight, weight), dtype


@pytest.mark.parametrize("scheme", ["symmetric", "affine"])
@pytest.mark.parametrize(("layer", "granularity"), SHAPES)
def test_no_weight_is_further_from_its_value_than_half_a_step(layer, granularity, scheme):
    """But for the types whose range leaves values out: unsigned and symmetric."""
    dtypes = ["int4", "int8"] + (["uint4", "uint8", "uint16"] if scheme == "affine" else [])
    for dtype in dtypes:
        session = quantized(layer, granularity, dtype, scheme)
        module = session.model[0]
        raw, qparams = module._parameters["weight"].detach(), session.qparams()["0"]["weight"]
        scale = qparams.scale
        if scale.ndim:
            scale = tersely.expand_blocks(scale, qparams.block_size, raw.shape)

        # A zero point is rounded too, so an affine range may lie half a step off at its end.
        largest = 0.5 if scheme == "symmetric" else 1.0
        assert bool(((module.weight - raw).abs() <= scale * (largest + 1e-3)).all()), dtype


def test_each_channel_has_a_scale_worked_out_by_hand():
    model = nn.Sequential(nn.Linear(2, 2))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[0.7, -0.15], [-1.4, 0.5]]))
    entry = {"op_names": ["0"], "target_names": ["weight"], "quant_dtype": "int4"}
    session = tersely.quantize(model, [{**entry, "granularity": "per_channel"}], algorithm="ptq")

    # Steps of 0.1 and 0.2: -0.15 is 1.5 steps, and halves go to the even 2; 0.5 is 2.5 steps.
    assert session.qparams()["0"]["weight"].scale.flatten().tolist() == pytest.approx([0.1, 0.2])
    torch.testing.assert_close(model[0].weight.detach(), torch.tensor([[0.7, -0.2], [-1.4, 0.4]]))


@pytest.mark.parametrize("algorithm", ["qat", "lsq", "lsq_plus", "rtn"])
@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_other_algorithms_read_back_too(algorithm, granularity):
    for dtype in ("int2", "int8", "uint8", "uint16", "float8_e4m3fn"):
        session = quantized("Linear", granularity, dtype, "affine", algorithm)
        found = session.integer_weights()["0"]["weight"]

        assert torch.equal(found.dequantize(), session.model[0].weight), dtype
