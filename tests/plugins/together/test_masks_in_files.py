"""Masks of inputs and outputs: files of tensors refuse what they would lose, graphs hold it."""

import pytest
import torch
from torch import nn

import tersely

X = torch.randn(3, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def session() -> tersely.Session:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 32), nn.Linear(32, 4)).eval()
    pruned = {"op_names": ["0"], "target_names": ["_output_"], "sparse_ratio": 0.5}
    weights = {"op_types": ["Linear"], "target_names": ["weight"], "quant_dtype": "int8"}
    recipe = {
        "pruning": {"algorithm": "level", "config_list": [pruned]},
        "quantization": {"algorithm": "ptq", "config_list": [weights]},
    }
    session = tersely.attach(model, recipe)
    session.calibrate([X])
    session.compress()
    return session


@pytest.mark.parametrize("format", ["safetensors", "gguf"])
def test_a_file_of_tensors_refuses_a_masked_output(session, tmp_path, format):
    pytest.importorskip("gguf")

    with pytest.raises(tersely.ExportError, match=r"0\._output_") as caught:
        session.export(format, tmp_path / "model", example_inputs=X)

    assert "it is masked in each call, which a file of tensors cannot hold" in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_graph_holds_a_masked_output(session, tmp_path):
    exported = session.export("pt2", tmp_path / "model.pt2", example_inputs=X)

    loaded = torch.export.load(exported.paths[0]).module()
    torch.testing.assert_close(loaded(X), session.model(X))


def test_without_such_masks_the_file_is_written(tmp_path):
    model = nn.Sequential(nn.Linear(8, 32)).eval()
    entry = {"op_types": ["Linear"], "target_names": ["weight"], "quant_dtype": "int8"}
    session = tersely.quantize(model, [entry])

    assert session.export("safetensors", tmp_path / "model", example_inputs=X).paths[0].exists()
