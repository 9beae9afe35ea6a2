"""A tensor with several names is stored once, and read under each of them."""

import torch
from safetensors.torch import load_file, load_model
from torch import nn

from tersely.storage.tensor_file import tensors_in, write_tensors


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 8)
        self.head = nn.Linear(8, 50, bias=False)
        self.head.weight = self.embedding.weight


def test_a_tied_weight_is_stored_once(tmp_path):
    write_tensors(tmp_path / "model.safetensors", Tied().state_dict())

    assert list(load_file(tmp_path / "model.safetensors")) == ["embedding.weight"]
    assert (tmp_path / "model.safetensors").stat().st_size < 2 * 50 * 8 * 4


def test_it_is_read_under_both_names_in_memory_of_their_own(tmp_path):
    model = Tied()
    write_tensors(tmp_path / "model.safetensors", model.state_dict())

    tensors = tensors_in((tmp_path / "model.safetensors").read_bytes())

    assert sorted(tensors) == ["embedding.weight", "head.weight"]
    assert all(torch.equal(one, model.head.weight) for one in tensors.values())
    assert tensors["head.weight"].data_ptr() != tensors["embedding.weight"].data_ptr()


def test_safetensors_own_loader_fills_the_model(tmp_path):
    model, other = Tied(), Tied()
    write_tensors(tmp_path / "model.safetensors", model.state_dict())

    assert load_model(other, tmp_path / "model.safetensors") == (set(), [])
    assert torch.equal(other.head.weight, model.head.weight)


def test_views_of_one_memory_that_differ_are_stored_each(tmp_path):
    whole = torch.arange(12.0).reshape(3, 4)
    views = {
        "whole": whole,
        "first": whole[0],
        "turned": whole.T,
        "integers": whole.view(torch.int32),
    }

    write_tensors(tmp_path / "views.safetensors", views)

    stored = load_file(tmp_path / "views.safetensors")
    assert {name: one.tolist() for name, one in stored.items()} == {
        name: one.tolist() for name, one in views.items()
    }


def test_an_alias_in_the_metadata_replaces_no_tensor(tmp_path):
    one, two = torch.ones(2), torch.zeros(2)
    write_tensors(tmp_path / "file.safetensors", {"format": one, "again": one, "pt": two})

    tensors = tensors_in((tmp_path / "file.safetensors").read_bytes())

    assert {name: value.tolist() for name, value in tensors.items()} == {
        "format": [1, 1], "again": [1, 1], "pt": [0, 0],
    }  # fmt: skip
