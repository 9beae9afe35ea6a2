import pytest
import torch
from messages.sessions import CALIBRATE_FIRST, RANKS_BY_CALIBRATION
from torch import nn

import tersely
from tersely_pruning.apoz import Apoz

# Three samples of two channels: the first is positive twice, the second never.
OUTPUTS = torch.tensor([[1.0, -1.0], [2.0, 0.0], [-3.0, -0.5]])
ROWS = (1, -1)


def test_zeros_are_what_a_relu_would_make_zero(target_of):
    observed = Apoz().observe_output(OUTPUTS, target_of("apoz", torch.zeros(2, 5), ROWS))
    assert observed["zeros"].tolist() == [1, 3]
    assert observed["values"].item() == 3


def test_importance_is_the_share_of_positive_values(target_of):
    observed = {"zeros": torch.tensor([1, 3]), "values": torch.tensor(4)}
    target = target_of("apoz", torch.zeros(2, 5), ROWS, observed=observed)
    assert Apoz().importance(target).tolist() == [[0.75], [0.25]]


def test_counts_of_batches_of_different_sizes_add_up(target_of):
    target = target_of("apoz", torch.zeros(2, 5), ROWS)
    parts = [Apoz().observe_output(OUTPUTS[rows], target) for rows in (slice(2), slice(2, 3))]
    observed = {name: parts[0][name] + parts[1][name] for name in parts[0]}
    target = target_of("apoz", torch.zeros(2, 5), ROWS, observed=observed)
    assert Apoz().importance(target).flatten().tolist() == pytest.approx([2 / 3, 0.0])


def test_channels_of_a_convolution_are_counted_over_samples_and_positions(target_of):
    outputs = torch.stack([torch.tensor([[1.0, 1.0], [1.0, -1.0]]), -torch.ones(2, 2)])[None]
    target = target_of("apoz", torch.zeros(2, 3, 3, 3), (1, -1, -1, -1), channel_dim=1)
    observed = Apoz().observe_output(outputs, target)
    assert observed["zeros"].tolist() == [1, 4]
    assert observed["values"].item() == 4


def test_channels_of_a_linear_layer_are_last(target_of):
    outputs = torch.tensor([1.0, -1.0]).expand(3, 7, 2)
    observed = Apoz().observe_output(outputs, target_of("apoz", torch.zeros(2, 5), ROWS))
    assert observed["zeros"].tolist() == [0, 21]


def test_a_whole_model_is_pruned_by_what_calibration_sees():
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU())
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[-1.0, 0.0], [0.0, 1.0]]))
    config_list = [{"op_types": ["Linear"], "sparse_ratio": 0.5}]
    data = [torch.tensor([[1.0, 1.0], [2.0, 1.0]]), torch.tensor([[-1.0, 3.0]])]
    session = tersely.prune(model, config_list, algorithm="apoz", data=data)
    # The first neuron is positive for one of three samples, the second for all.
    assert session.masks()["0"]["weight"].tolist() == [[False, False], [True, True]]


def test_without_calibration_there_is_nothing_to_rank_by(target_of):
    with pytest.raises(tersely.SessionError) as caught:
        Apoz().importance(target_of("apoz", torch.zeros(2, 5), ROWS))
    assert str(caught.value) == f"layer.weight: apoz {RANKS_BY_CALIBRATION}; {CALIBRATE_FIRST}"
