"""What runs a written file: called as the model is, and the same values."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import onnx
import pytest
import torch
from torch import nn

import tersely
from tersely import contracts
from tersely.exporting.export import make_exporter


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 16), nn.Linear(4, 16)

    def forward(self, words: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        return self.first(words) + self.second(places)


@pytest.fixture
def written(tmp_path: Path) -> Callable[[str], tuple[Any, Any, Callable[..., Any]]]:
    def write(name: str) -> tuple[Any, Any, Callable[..., Any]]:
        torch.manual_seed(0)
        model = Two().eval()
        inputs = (torch.randn(2, 3, 8), torch.randn(2, 3, 4))
        session = tersely.quantize(model, preset="w8a8", data=[inputs])
        exported = session.export(name, tmp_path / name, example_inputs=inputs)
        exporter = make_exporter(name).exporter
        assert isinstance(exporter, contracts.RunsExport)
        return model, inputs, exporter.load(exported.paths[0], threads=1)

    return write


@pytest.mark.parametrize("name", ["onnx", "pt2"])
def test_a_file_is_called_as_the_model_is(name: str, written: Any) -> None:
    model, (words, places), run = written(name)
    with torch.no_grad():
        expected = model(words, places).numpy()

    found = run(words, places)

    values = found[0] if isinstance(found, list) else found.detach().numpy()
    numpy.testing.assert_allclose(values, expected, atol=0.02)


def test_inputs_of_onnx_have_the_names_of_the_arguments(written: Any) -> None:
    _, (words, places), run = written("onnx")

    numpy.testing.assert_array_equal(run(words, places=places)[0], run(words, places)[0])


def test_a_file_keeps_no_notes_of_the_machine_it_was_written_on(
    tmp_path: Path, written: Any
) -> None:
    written("onnx")

    file = next(tmp_path.glob("onnx*"))
    text = file.read_bytes()
    graph = onnx.load(file).graph
    assert str(Path(__file__).parent).encode() not in text
    assert not any(node.metadata_props or node.doc_string for node in graph.node)


WEIGHTS = [{"op_types": ["Linear"], "target_names": ["weight"]}]


@pytest.mark.filterwarnings("ignore::tersely.errors.CompressionWarning")  # products in floats
def test_the_layers_of_a_float16_model_are_compared_within_its_rounding(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 8)).half().eval()
    session = tersely.quantize(model, WEIGHTS)

    exported = session.export("onnx", tmp_path / "m.onnx", example_inputs=torch.randn(4, 32).half())

    assert exported.checks["layers_within_one_step"] == 2


def test_a_bfloat16_model_that_onnxruntime_cannot_open_is_an_error_with_ways_out(
    tmp_path: Path,
) -> None:
    model = nn.Sequential(nn.Linear(8, 4), nn.ReLU()).bfloat16().eval()
    session = tersely.quantize(model, WEIGHTS)
    inputs = torch.zeros(1, 8, dtype=torch.bfloat16)

    with pytest.raises(tersely.ExportError, match=r"cannot open the file.*model\.float\(\)"):
        session.export("onnx", tmp_path / "m.onnx", example_inputs=inputs)

    assert list(tmp_path.iterdir()) == []
    assert session.export("onnx", tmp_path / "m.onnx", example_inputs=inputs, check=False).bytes
