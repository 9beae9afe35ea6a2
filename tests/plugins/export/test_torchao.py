"""The format torchao: its tensors in PyTorch's own layers."""

import re
from pathlib import Path

import pytest
import torch
from torch import nn

import tersely

pytest.importorskip("torchao")
pytestmark = pytest.mark.filterwarnings("ignore")  # of what torchao imports

ROOT = Path(__file__).parents[3]
INPUTS = torch.randn(4, 32, generator=torch.Generator().manual_seed(0))
SEQUENCES = torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(0))
PER_CHANNEL = {"granularity": "out_channel"}
UINT8 = {"quant_dtype": "uint8"}
AFFINE = {**UINT8, "quant_scheme": "affine"}


def loaded(model, path):
    model.load_state_dict(torch.load(path, weights_only=True), assign=True)
    return model.eval()


def plain():
    return nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 32))


def test_the_exporter_keeps_its_contract():
    from tersely.testing import check_exporter

    check_exporter("torchao")


@pytest.mark.parametrize("is_finished", [False, True], ids=["attached", "finalized"])
def test_a_layer_into_which_a_preset_folds_its_activation_is_compared_with_it(
    tmp_path, is_finished
):
    torch.manual_seed(0)
    session = tersely.attach(
        plain(), {"quantization": {"preset": "w8a8_dynamic"}}, example_inputs=INPUTS
    )
    session.compress()
    if is_finished:
        session.finalize()

    exported = session.export("torchao", tmp_path / "m.pt", example_inputs=INPUTS)

    assert exported.checks["layers_compared"] == 2
    assert exported.checks["cosine"] > 0.999
    found = loaded(plain(), exported.paths[0])(INPUTS)
    assert (
        torch.nn.functional.cosine_similarity(
            found.flatten(), session.model(INPUTS).flatten(), dim=0
        )
        > 0.999
    )


@pytest.mark.parametrize("batch", [INPUTS, SEQUENCES], ids=["rows", "sequences"])
@pytest.mark.parametrize("algorithm", ["ptq", "rtn"])
@pytest.mark.parametrize(
    "of_input",
    [UINT8, AFFINE, {**UINT8, "granularity": "per_token"}, {**AFFINE, "granularity": "per_token"}],
    ids=["tensor", "tensor_affine", "token", "token_affine"],
)
def test_a_model_with_integer_products_computes_what_the_session_simulates(
    quantized, layers, tmp_path, batch, algorithm, of_input
):
    session = quantized(
        layers,
        batch,
        algorithm=algorithm,
        target_names=["_input_", "weight"],
        target_settings={"weight": PER_CHANNEL, "_input_": of_input},
    )

    exported = session.export("torchao", tmp_path / "m.pt", example_inputs=batch)

    assert exported.checks["tensors"] == {"Int8Tensor": 2}
    assert exported.checks["layers_within_one_step"] == 2
    found = loaded(plain(), exported.paths[0])(batch)
    # One input that lies between two integers may be rounded the other way.
    assert torch.allclose(found, layers(batch), atol=5e-3)


@pytest.mark.parametrize(
    ("entry", "kind"),
    [
        (PER_CHANNEL, "Int8Tensor"),
        ({}, "Int8Tensor"),
        ({"granularity": {"group": 16}}, "IntxUnpackedToInt8Tensor"),
        ({"quant_dtype": "int4", "granularity": {"group": 16}}, "IntxUnpackedToInt8Tensor"),
        (
            {"quant_dtype": "uint3", "quant_scheme": "affine", **PER_CHANNEL},
            "IntxUnpackedToInt8Tensor",
        ),
        ({"quant_dtype": "int4", "granularity": [16, 8]}, "IntxUnpackedToInt8Tensor"),
    ],
    ids=["channel8", "tensor8", "group8", "group4", "affine3", "block4"],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_each_weight_is_read_exactly(quantized, layers, tmp_path, entry, kind, dtype):
    batch = INPUTS.to(dtype)
    session = quantized(layers.to(dtype), batch, algorithm="rtn", target_names=["weight"], **entry)

    exported = session.export("torchao", tmp_path / "m.pt", example_inputs=batch)

    assert exported.checks["tensors"] == {kind: 2}
    assert exported.checks["weights_equal"] == 2
    assert exported.checks["cosine"] > 0.9999


def test_int8_inputs_have_the_range_of_torchao_at_each_call(quantized, layers, tmp_path):
    """Its largest value is divided by 127.5, ours by 127."""
    session = quantized(
        layers,
        INPUTS,
        algorithm="rtn",
        target_names=["_input_", "weight"],
        target_settings={"weight": PER_CHANNEL},
    )

    exported = session.export("torchao", tmp_path / "m.pt", example_inputs=INPUTS)

    assert 0.9999 < exported.checks["cosine"] < 1 - 1e-6


def test_convolutions_and_embeddings_are_read(quantized, tmp_path):
    images = torch.randn(2, 3, 8, 8)
    session = quantized(
        nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=2)),
        images,
        algorithm="rtn",
        op_types=["Conv2d"],
        target_names=["weight"],
        **PER_CHANNEL,
    )
    exported = session.export("torchao", tmp_path / "conv.pt", example_inputs=images)
    assert exported.checks["largest_difference"] < 1e-6

    tokens = torch.randint(0, 50, (2, 7))
    model = nn.Sequential(nn.Embedding(50, 32), nn.Linear(32, 50, bias=False))
    model[1].weight = model[0].weight
    session = quantized(model, tokens, op_types=["Embedding"], target_names=["weight"])
    exported = session.export("torchao", tmp_path / "tied.pt", example_inputs=tokens)
    state = torch.load(exported.paths[0], weights_only=True)
    assert torch.equal(state["0.weight"].qdata, state["1.weight"].qdata)
    assert exported.bytes < 50 * 32 + 4000


@pytest.mark.parametrize(
    ("entry", "target", "reason"),
    [
        ({"target_names": ["weight", "_output_"]}, "0._output_", "leave outputs out"),
        ({"target_names": ["_input_"]}, "0._input_", "with a quantized weight"),
        ({"target_names": ["weight", "bias"], "quant_dtype": "int8"}, "0.bias", "this is bias"),
        ({"target_names": ["weight"], "quant_dtype": "int12"}, "0.weight", "up to 8 bits"),
        (
            {
                "target_names": ["_input_", "weight"],
                "target_settings": {"weight": {"quant_dtype": "int4"}},
            },
            "0._input_",
            "by token, affine, at each call alone",
        ),
        (
            {"target_names": ["_input_", "weight"], "quant_dtype": "int4"},
            "0._input_",
            "to 8 bits, and this is int4",
        ),
    ],
)
def test_what_torchao_cannot_hold_is_refused_by_name(
    quantized, layers, tmp_path, entry, target, reason
):
    session = quantized(layers, INPUTS, **entry)

    with pytest.raises(tersely.ExportError) as caught:
        session.export("torchao", tmp_path / "m.pt", example_inputs=INPUTS)

    refused = {one.target: one.reason for one in caught.value.refusals}
    assert reason in refused[target]
    assert list(tmp_path.iterdir()) == []


def test_a_known_scale_needs_a_call_of_the_model(quantized, layers, tmp_path):
    session = quantized(
        layers,
        INPUTS,
        target_names=["_input_", "weight"],
        target_settings={"weight": PER_CHANNEL},
    )

    with pytest.raises(tersely.ExportError, match="give example_inputs"):
        session.export("torchao", tmp_path / "m.pt")


def test_the_page_shows_how_to_load_it(tmp_path, monkeypatch):
    text = (ROOT / "docs" / "exporting.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```\{code-block\} python\n:caption: torchao.py\n(.*?)```", text, re.S)
    monkeypatch.chdir(tmp_path)

    exec(compile(block, "torchao.py", "exec"), {})
