"""Conv1D of Transformers, whose weight is (inputs, outputs): by presets to runtimes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import tersely

TOKENS = {"input_ids": torch.randint(0, 200, (2, 16), generator=torch.Generator().manual_seed(0))}
LAYERS = 8
"""Conv1D in two blocks: attention in and out, feed-forward in and out."""


@pytest.fixture
def gpt2() -> Any:
    torch.manual_seed(0)
    config = transformers.GPT2Config(n_embd=128, n_layer=2, n_head=2, vocab_size=200)
    return transformers.GPT2Model(config).eval()


def written(
    model: Any, path: Path, preset: str, runtime: str | None = "onnxruntime"
) -> Mapping[str, Any]:
    session = tersely.quantize(model, preset=preset, runtime=runtime, data=[TOKENS])
    return session.export("onnx", path, example_inputs=TOKENS).checks


def test_a_preset_gives_each_output_a_scale(gpt2: Any) -> None:
    session = tersely.quantize(gpt2, preset="w8a8", data=[TOKENS])

    weight = gpt2.h[0].attn.c_attn.weight
    scale = session.qparams()["h.0.attn.c_attn"]["weight"].scale
    assert weight.shape == (128, 384)
    torch.testing.assert_close(
        scale.flatten(), weight.detach().abs().amax(0) / 127, rtol=0.02, atol=0
    )


@pytest.mark.parametrize("preset", ["w8a8", "w8a8_dynamic"])
def test_every_layer_runs_as_integers(gpt2: Any, tmp_path: Path, preset: str) -> None:
    checks = written(gpt2, tmp_path / "m.onnx", preset)

    assert checks["integer_kernels"] == checks["quantized_products"] == LAYERS
    assert checks["layers_within_one_step"] == checks["layers_compared"] >= LAYERS
    assert checks["cosine"] > 0.99


def test_groups_of_4_bits_run_in_their_kernel(gpt2: Any, tmp_path: Path) -> None:
    checks = written(gpt2, tmp_path / "m.onnx", "w4a16")

    assert checks["kernels"] == {"MatMulNBits": LAYERS}


def test_openvino_multiplies_its_integers(gpt2: Any, tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino")
    written(gpt2, tmp_path / "m.onnx", "w8a8", "openvino")
    with torch.no_grad():
        simulated = gpt2(**TOKENS).last_hidden_state

    core = openvino.Core()
    compiled = core.compile_model(
        core.read_model(tmp_path / "m.onnx"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    found = torch.from_numpy(compiled({"input_ids": TOKENS["input_ids"].numpy()})[0])

    products = [
        op.get_rt_info()["runtimePrecision"].astype(str)
        for op in compiled.get_runtime_model().get_ops()
        if op.get_rt_info()["layerType"].astype(str) in ("FullyConnected", "MatMul")
    ]
    assert sum(one in ("u8", "i8") for one in products) == LAYERS, products
    assert torch.cosine_similarity(found.flatten(), simulated.flatten(), dim=0) > 0.99
