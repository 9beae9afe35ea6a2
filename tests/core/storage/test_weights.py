"""The weights of a model as a file, without what tersely added."""

import torch
from torch import nn

from tersely.storage.weights import WEIGHTS, load_weights, save_weights


def test_what_a_mask_removes_is_written_as_zero_whatever_it_was(tmp_path):
    model = nn.Linear(2, 1, bias=False)
    model.weight.data = torch.tensor([[3.0, float("nan")]])

    save_weights(model, tmp_path, kept={"weight": torch.tensor([[True, False]])})
    load_weights(model, tmp_path / WEIGHTS)

    assert model.weight.tolist() == [[3.0, 0.0]]
