"""A model's weights on disk: what was changed since they were written is not loaded."""

import pytest
import torch
from torch import nn

from tersely.errors import SessionFileError
from tersely.storage.tensor_file import write_tensors
from tersely.storage.weights import WEIGHTS, load_weights, save_weights


def tied():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Linear(3, 3))
    model[2].weight = model[0].weight
    return model


def test_weights_come_back_bit_for_bit(tmp_path) -> None:
    model, other = tied(), tied()
    with torch.no_grad():
        model[0].weight.fill_(float("nan"))
        model[0].weight[0, 0] = 1e-45
    save_weights(model, tmp_path)

    load_weights(other, tmp_path / WEIGHTS)

    expected = model.state_dict()
    assert all(
        torch.equal(tensor.nan_to_num(7), expected[name].nan_to_num(7))
        for name, tensor in other.state_dict().items()
    )


@pytest.mark.parametrize("from_the_end", [1, 9, 40])
def test_one_changed_bit_of_a_value_is_an_error_that_changes_nothing(
    tmp_path, from_the_end
) -> None:
    save_weights(tied(), tmp_path)
    place = tmp_path / WEIGHTS
    content = bytearray(place.read_bytes())
    content[-from_the_end] ^= 1
    place.write_bytes(content)
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Linear(3, 3))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    with pytest.raises(SessionFileError, match="do not fit the digest"):
        load_weights(model, place)

    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_the_same_weights_are_the_same_bytes_each_time(tmp_path) -> None:
    tensor = torch.ones(2)
    places = [tmp_path / f"{number}.safetensors" for number in range(5)]
    for place in places:
        write_tensors(place, dict.fromkeys("abcdefgh", tensor), notes={"of": "us"})

    assert len({place.read_bytes() for place in places}) == 1
