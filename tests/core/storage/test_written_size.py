"""How long a file of tensors will be is known without writing it, to the byte."""

import pytest
import torch
from messages.files import NOT_IN_SAFETENSORS
from torch import nn

from tersely.storage.tensor_file import write_tensors, written_size

WEIGHT = torch.randn(30, 40)

MODELS = {
    "nothing": {},
    "one": {"weight": WEIGHT},
    "a scalar and an empty one": {"a": torch.tensor(1.5), "b": torch.empty(0, 3)},
    "a tied one": {"embedding.weight": WEIGHT, "head.weight": WEIGHT},
    "parts of one memory": {"all": WEIGHT, "rows": WEIGHT[:7], "columns": WEIGHT[:, 5:]},
    "names beyond ASCII": {'größe "x"\\': WEIGHT, "a\tb\x01": torch.ones(3)},
    "many": {f"layer.{index}.weight": torch.ones(index) for index in range(120)},
    "many dtypes": {
        f"{index}.{str(dtype).removeprefix('torch.')}": torch.zeros(7 * index + 3, dtype=dtype)
        for index, dtype in enumerate(
            [
                torch.int64,
                torch.float8_e5m2,
                torch.float32,
                torch.bool,
                torch.float64,
                torch.int8,
                torch.float16,
                torch.int32,
                torch.uint8,
                torch.bfloat16,
                torch.int16,
                torch.float8_e4m3fn,
            ]
        )
    },
}


@pytest.mark.parametrize("tensors", MODELS.values(), ids=MODELS)
def test_a_file_is_as_long_as_was_counted(tmp_path, tensors):
    write_tensors(tmp_path / "model.safetensors", tensors)

    assert written_size(tensors) == (tmp_path / "model.safetensors").stat().st_size


@pytest.mark.parametrize(
    "tensor", [torch.zeros(2, dtype=torch.complex128), torch.eye(3).to_sparse()]
)
def test_what_a_file_cannot_hold_is_refused_alike(tmp_path, tensor):
    with pytest.raises(TypeError, match=NOT_IN_SAFETENSORS):
        written_size({"weight": tensor})
    with pytest.raises(TypeError, match=NOT_IN_SAFETENSORS):
        write_tensors(tmp_path / "model.safetensors", {"weight": tensor})


def test_buffers_and_parameters_of_a_model_are_counted(tmp_path):
    model = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8))
    write_tensors(tmp_path / "model.safetensors", model.state_dict())

    assert written_size(model.state_dict()) == (tmp_path / "model.safetensors").stat().st_size
