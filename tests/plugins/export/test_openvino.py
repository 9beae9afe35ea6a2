"""Files of the format onnx in OpenVINO: what it computes with integers, and what comes out."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import tersely

openvino = pytest.importorskip("openvino")
# onnxruntime, which checks the files, needs quantized outputs of convolutions, and OpenVINO does not.
pytestmark = pytest.mark.filterwarnings("ignore::tersely.errors.CompressionWarning")

IMAGES = (4, 3, 16, 16)


class Residual(nn.Module):
    """A stem with pooling, and a block whose input is added to its output."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm, self.act = nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU()
        self.pool = nn.MaxPool2d(2)
        self.first, self.norm1 = nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.act1 = nn.ReLU()
        self.second, self.norm2 = nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.act2, self.head = nn.ReLU(), nn.Linear(16, 10)

    def forward(self, image: torch.Tensor) -> Any:
        image = self.pool(self.act(self.norm(self.stem(image))))
        inner = self.act1(self.norm1(self.first(image)))
        image = self.act2(self.norm2(self.second(inner)) + image)
        return self.head(image.mean((2, 3)))


class Tokens(nn.Module):
    """An embedding, a norm, and three linear layers, two of them in a row."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.norm = nn.Embedding(50, 64), nn.LayerNorm(64)
        self.query, self.up, self.down = nn.Linear(64, 64), nn.Linear(64, 128), nn.Linear(128, 64)

    def forward(self, tokens: torch.Tensor) -> Any:
        hidden = self.embedding(tokens)
        hidden = hidden + self.query(self.norm(hidden))
        return hidden + self.down(nn.functional.gelu(self.up(hidden)))


def exported(model: nn.Module, batch: torch.Tensor, path: Path, **stage: Any) -> torch.Tensor:
    """Write a quantized model, and return what its simulation computes."""
    session = tersely.quantize(model.eval(), data=[batch], **stage)
    session.export("onnx", path, example_inputs=batch, dynamic_shapes="batch")
    with torch.no_grad():
        simulated: torch.Tensor = model(batch)
    return simulated


def compiled(path: Path) -> Any:
    # In float32, so that what is left of it does not hide in bfloat16.
    return openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})


def types_of(model: Any, *kinds: str, note: str = "runtimePrecision") -> list[str]:
    """The types that OpenVINO's own layers of some kinds compute with, or another note of them."""
    notes = [one.get_rt_info() for one in model.get_runtime_model().get_ordered_ops()]
    return [one[note].value for one in notes if one["layerType"].value in kinds]


def agreement(model: Any, batch: torch.Tensor, simulated: torch.Tensor) -> float:
    [output] = model({model.inputs[0].get_any_name(): batch.numpy()}).values()
    found = torch.from_numpy(output.copy())
    return float(nn.functional.cosine_similarity(found.flatten(), simulated.flatten(), dim=0))


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
def test_every_convolution_of_a_preset_multiplies_integers(tmp_path: Path, runtime: str) -> None:
    images, path = torch.randn(IMAGES), tmp_path / "model.onnx"
    simulated = exported(
        Residual(), images, path, preset="w8a8", runtime=runtime, fuse_names="auto"
    )
    model = compiled(path)

    assert types_of(model, "Convolution") == ["u8", "u8", "u8"]
    assert types_of(model, "FullyConnected") == ["u8"]
    assert agreement(model, images, simulated) > 0.999


def test_convolutions_before_an_addition_write_integers_if_their_outputs_are_quantized(
    tmp_path: Path,
) -> None:
    images, path = torch.randn(IMAGES), tmp_path / "model.onnx"
    uint8 = {"quant_dtype": "uint8", "quant_scheme": "affine"}
    added = [{"op_names": ["second"], "target_names": ["_output_"], **uint8}]
    stage = {"preset": "w8a8", "runtime": "openvino", "fuse_names": "auto"}
    simulated = exported(Residual(), images, path, config_list=added, **stage)
    model = compiled(path)

    assert types_of(model, "Convolution", note="outputPrecisions") == ["u8", "u8", "u8"]
    assert agreement(model, images, simulated) > 0.999


def test_every_linear_layer_of_a_preset_multiplies_integers(tmp_path: Path) -> None:
    tokens, path = torch.randint(0, 50, (4, 16)), tmp_path / "model.onnx"
    simulated = exported(Tokens(), tokens, path, preset="w8a8", runtime="openvino")
    model = compiled(path)

    assert types_of(model, "FullyConnected") == ["u8", "u8", "u8"]
    # The first reads the tokens, the second the scales of their rows.
    assert types_of(model, "Gather")[0] == "i8"
    assert agreement(model, tokens, simulated) > 0.999


def test_weights_of_four_bits_are_read_as_such(tmp_path: Path) -> None:
    tokens, path = torch.randint(0, 50, (4, 16)), tmp_path / "model.onnx"
    groups = {"quant_dtype": "int4", "granularity": {"group": 32}}
    entry = {"op_types": ["Linear"], "target_names": ["weight"], **groups}
    simulated = exported(Tokens(), tokens, path, config_list=[entry], algorithm="rtn")
    model = compiled(path)

    assert types_of(model, "FullyConnected") == ["i4", "i4", "i4"]
    assert agreement(model, tokens, simulated) > 0.999


def test_grouped_transposed_convolutions_of_a_preset_are_read(tmp_path: Path) -> None:
    torch.manual_seed(0)
    images, path = torch.randn(IMAGES), tmp_path / "model.onnx"
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.ConvTranspose2d(8, 12, 3, stride=2, groups=2)
    )
    simulated = exported(model, images, path, preset="w8a8", runtime="openvino")

    assert agreement(compiled(path), images, simulated) > 0.999
