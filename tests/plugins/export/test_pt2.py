"""The format pt2: PyTorch's own file, loaded again."""

import errno
import io

import pytest
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


class FullDisk(io.FileIO):
    """A file of which only the first bytes can be written."""

    def write(self, data):
        if self.tell() > 1000:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(memoryview(data)[:600])


def test_a_full_disk_is_an_error_and_not_the_end_of_the_process(
    quantized, layers, tmp_path, monkeypatch
):
    inputs = torch.randn(4, 32)
    session = quantized(layers, inputs)
    usual = type(tmp_path).open

    def opened(path, mode="r", *args, **kwargs):
        if path.suffix == ".pt2" and mode == "wb":
            return FullDisk(path, "wb")
        return usual(path, mode, *args, **kwargs)

    monkeypatch.setattr(type(tmp_path), "open", opened)

    with pytest.raises(OSError, match="No space left on device"):
        session.export("pt2", tmp_path, example_inputs=inputs)

    assert list(tmp_path.iterdir()) == []
