"""The format pt2: PyTorch's own file, loaded again."""

import torch

from tersely.testing import check_exporter


def test_the_exporter_keeps_its_contract():
    check_exporter("pt2")


def test_the_loaded_program_computes_what_the_session_simulates(quantized, layers, tmp_path):
    inputs = torch.randn(4, 32)
    session = quantized(layers, inputs, target_names=["_input_", "weight"])

    exported = session.export("pt2", tmp_path, example_inputs=inputs)

    assert exported.paths == (tmp_path / "model.pt2",)
    assert exported.checks["integer_weights_equal"] == 2
    loaded = torch.export.load(exported.paths[0])
    assert torch.allclose(loaded.module()(inputs), session.model(inputs), atol=1e-6)
