"""Products that onnxruntime computes in floats are told by name, with what would change it."""

import warnings

import pytest
import torch
from torch import nn

import tersely
from tersely.errors import CompressionWarning

ROWS = torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(0))
IMAGES = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
UINT8 = {"quant_dtype": "uint8", "quant_scheme": "affine"}
WEIGHT = {"granularity": "per_channel"}
INPUTS = {"weight": WEIGHT, "_input_": UINT8}


def linear():
    return nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 10))


def convolution():
    return nn.Sequential(nn.Conv2d(3, 8, 3))


def transposed():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ConvTranspose2d(8, 4, 2))


class Bare(nn.Module):
    """A weight that no layer of torch holds."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 32, 8))

    def forward(self, x):
        return torch.einsum("bti,eio->bteo", x, self.weight)


def recurrent():
    return nn.Sequential(nn.LSTM(32, 8, batch_first=True))


class Twice(nn.Module):
    """Two linear layers' worth of inputs from one tensor."""

    def __init__(self):
        super().__init__()
        self.both = nn.Bilinear(32, 32, 4)

    def forward(self, x):
        return self.both(x, x)


def bilinear():
    return nn.Sequential(Twice())


def bare():
    return nn.Sequential(Bare())


def of_weights(**entry):
    return {"target_names": ["weight"], **entry}


def of(**settings):
    return {"target_names": list(settings), "target_settings": settings}


@pytest.mark.parametrize(
    ("build", "batch", "entry", "names", "reason"),
    [
        (
            linear,
            ROWS,
            of_weights(algorithm="rtn", quant_dtype="int4", granularity={"group": 8}),
            ["0.weight", "2.weight"],
            "groups of 16, 32, 64, 128, 256, and these have 8",
        ),
        (
            linear,
            ROWS,
            of_weights(quant_dtype="int12", **WEIGHT),
            ["0.weight", "2.weight"],
            "no kernel for int12",
        ),
        (
            linear,
            ROWS,
            of(weight={}, _input_={"quant_dtype": "int16"}),
            ["0.weight", "2.weight"],
            "no inputs of int16",
        ),
        (
            linear,
            ROWS,
            of(
                weight={"quant_dtype": "int4", "granularity": {"group": 32}},
                _input_={"quant_dtype": "int16"},
            ),
            ["0.weight", "2.weight"],
            "no inputs of int16",
        ),
        (convolution, IMAGES, of_weights(**WEIGHT), ["0.weight"], "quantize _input_ as well"),
        (convolution, IMAGES, of(**INPUTS), ["0.weight"], "quantize _output_"),
        (
            convolution,
            IMAGES,
            {"algorithm": "rtn", **of(**INPUTS)},
            ["0.weight"],
            "range calibration has observed",
        ),
        (
            transposed,
            IMAGES,
            of(**INPUTS, _output_=UINT8),
            ["1.weight"],
            "no integer kernel for transposed convolutions",
        ),
    ],
    ids=[
        "groups_of_8",
        "int12",
        "int16",
        "int16_beside_blocks",
        "no_inputs",
        "no_outputs",
        "dynamic",
        "transposed",
    ],
)
def test_they_are_named_with_a_reason_in_the_result_and_by_a_warning(
    quantized, tmp_path, build, batch, entry, names, reason
):
    model = build()
    kinds = sorted({type(one).__name__ for one in model if hasattr(one, "weight")})
    session = quantized(model, batch, op_types=kinds, **entry)

    with pytest.warns(CompressionWarning) as caught:
        exported = session.export("onnx", tmp_path / "m.onnx", example_inputs=batch)

    checks = exported.checks
    assert sorted(checks["float_products"]) == names
    assert all(reason in why for why in checks["float_products"].values())
    assert checks["quantized_products"] - checks["integer_kernels"] == len(names)
    [message] = [str(one.message) for one in caught]
    assert all(name in message for name in names)
    assert reason in message


@pytest.mark.parametrize("entry", [of(**INPUTS), of_weights()], ids=["inputs", "one_scale"])
def test_nothing_is_told_where_every_product_is_of_integers(quantized, tmp_path, entry):
    session = quantized(linear(), ROWS, **entry)

    with warnings.catch_warnings():
        warnings.simplefilter("error", CompressionWarning)
        exported = session.export("onnx", tmp_path / "m.onnx", example_inputs=ROWS)

    assert "float_products" not in exported.checks


@pytest.mark.parametrize(
    ("build", "names", "kind", "reason"),
    [
        (bilinear, ["weight"], "Bilinear", "found no integer kernel"),
        (
            recurrent,
            ["weight_hh_l0", "weight_ih_l0"],
            "LSTM",
            "no integer kernel for recurrent layers",
        ),
        (bare, ["weight"], "Bare", "found no integer kernel"),
    ],
    ids=["bilinear", "recurrent", "einsum"],
)
def test_so_are_those_whose_products_are_no_matmul(quantized, tmp_path, build, names, kind, reason):
    model = build()
    [place] = [path for path, one in model.named_modules() if type(one).__name__ == kind]
    session = quantized(
        model, ROWS, op_names=[place], op_types=None, target_names=names, quant_dtype="int8"
    )

    with pytest.warns(CompressionWarning, match=reason):
        exported = session.export("onnx", tmp_path / "m.onnx", example_inputs=ROWS)

    assert sorted(exported.checks["float_products"]) == [f"{place}.{name}" for name in names]


def test_a_preset_for_another_runtime_is_not_judged_by_onnxruntime(tmp_path):
    session = tersely.quantize(convolution(), preset="w8a8", runtime="openvino", data=[IMAGES])

    with warnings.catch_warnings():
        warnings.simplefilter("error", CompressionWarning)
        exported = session.export("onnx", tmp_path / "m.onnx", example_inputs=IMAGES)

    assert list(exported.checks["float_products"]) == ["0.weight"]


def test_an_embedding_whose_rows_are_multiplied_is_no_product(quantized, tmp_path):
    model = nn.Sequential(nn.Embedding(16, 32), nn.Linear(32, 4))
    tokens = torch.arange(10).reshape(2, 5)
    session = quantized(model, tokens, op_types=["Embedding"], **of_weights(**WEIGHT))

    with warnings.catch_warnings():
        warnings.simplefilter("error", CompressionWarning)
        exported = session.export("onnx", tmp_path / "m.onnx", example_inputs=tokens)

    assert "float_products" not in exported.checks
