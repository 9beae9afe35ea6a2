"""The format gguf, read by gguf's own reader."""

import numpy
import pytest
import torch
from torch import nn

import tersely
from tersely.testing import check_exporter

INPUTS = torch.randn(4, 32, generator=torch.Generator().manual_seed(0))


def read(path):
    from gguf import GGUFReader

    return {one.name: one for one in GGUFReader(str(path)).tensors}


def test_the_exporter_keeps_its_contract():
    check_exporter("gguf")


@pytest.mark.parametrize(
    ("entry", "kind", "size"),
    [
        ({"quant_dtype": "int8", "granularity": {"group": 32}}, "Q8_0", 34),
        ({"quant_dtype": "int8", "granularity": "out_channel"}, "Q8_0", 34),
        ({"quant_dtype": "int4", "granularity": {"group": 32}}, "Q4_0", 18),
        (
            {"quant_dtype": "uint4", "quant_scheme": "affine", "granularity": {"group": 32}},
            "Q4_1",
            20,
        ),
    ],
    ids=["q8_0", "q8_0_rows", "q4_0", "q4_1"],
)
def test_blocks_of_32_are_read_back(quantized, layers, tmp_path, entry, kind, size):
    session = quantized(layers, INPUTS, algorithm="rtn", target_names=["weight"], **entry)

    exported = session.export("gguf", tmp_path / "m.gguf")

    held = read(exported.paths[0])["0.weight"]
    assert held.tensor_type.name == kind
    assert held.n_bytes == 64 * size
    assert exported.checks["largest_error_in_steps"] < 0.1


def test_four_bits_lie_as_gguf_says(quantized, tmp_path):
    model = nn.Sequential(nn.Linear(32, 1, bias=False))
    with torch.no_grad():
        model[0].weight.copy_((torch.arange(32) % 15 - 7)[None].float())
    session = quantized(model, INPUTS, algorithm="rtn", target_names=["weight"], quant_dtype="int4")

    exported = session.export("gguf", tmp_path / "m.gguf")

    data = read(exported.paths[0])["0.weight"].data.reshape(-1)
    # The scale is 1; the first byte holds elements 0 (-7) and 16 (1 - 7), each 8 higher.
    assert data[:2].view(numpy.float16)[0] == 1
    assert data[2] == (1 | (2 << 4))


@pytest.mark.parametrize(
    ("entry", "target", "reason"),
    [
        ({"target_names": ["_input_"]}, "0._input_", "only holds weights"),
        (
            {"target_names": ["weight"], "granularity": {"group": 16}},
            "0.weight",
            "blocks of 32",
        ),
        (
            {"target_names": ["weight"], "quant_dtype": "uint8", "quant_scheme": "affine"},
            "2.weight",
            "only has zero points for 4 bits",
        ),
        ({"target_names": ["weight"], "quant_dtype": "int9"}, "0.weight", "up to 8 bits"),
    ],
)
def test_what_gguf_cannot_hold_is_refused_by_name(
    quantized, layers, tmp_path, entry, target, reason
):
    session = quantized(layers, INPUTS, **entry)

    with pytest.raises(tersely.ExportError) as caught:
        session.export("gguf", tmp_path / "m.gguf")

    assert caught.value.target == target
    assert reason in caught.value.reason
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_models_of_half_precision_are_written(quantized, layers, tmp_path, dtype):
    session = quantized(
        layers.to(dtype),
        INPUTS.to(dtype),
        algorithm="rtn",
        target_names=["weight"],
        granularity={"group": 32},
    )

    exported = session.export("gguf", tmp_path / "m.gguf")

    assert exported.checks["weights_compared"] == 2
    assert exported.checks["largest_error_in_steps"] < 0.1


def test_floats_that_float16_does_not_hold_are_refused(quantized, layers, tmp_path):
    with torch.no_grad():
        layers[2].weight[0, 0] = 1e5
    session = quantized(layers, INPUTS, op_names=["0"], target_names=["weight"])

    with pytest.raises(tersely.ExportError, match=r"2\.weight: it has values above 65504"):
        session.export("gguf", tmp_path / "m.gguf")
