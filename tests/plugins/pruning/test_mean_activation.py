import pytest
import torch
from messages.sessions import CALIBRATE_FIRST, CHECK_BATCHES, RANKS_BY_CALIBRATION

import tersely
from tersely_pruning.mean_activation import MeanActivation

OUTPUTS = torch.tensor([[1.0, -1.0], [2.0, 0.5], [-3.0, -0.5]])
ROWS = (1, -1)


@pytest.fixture
def see(target_of):
    def observe(outputs, tensor, size, **plan):
        target = target_of("mean_activation", tensor, size, **plan)
        return MeanActivation().observe_output(outputs, target)

    return observe


@pytest.fixture
def importance_of(target_of):
    def importance(total, values, tensor, size, **plan):
        observed = {"total": torch.tensor(total), "values": torch.tensor(values)}
        target = target_of("mean_activation", tensor, size, observed=observed, **plan)
        return MeanActivation().importance(target)

    return importance


def test_a_batch_adds_what_a_relu_would_let_through(see):
    observed = see(OUTPUTS, torch.zeros(2, 5), ROWS)
    assert observed["total"].tolist() == [3.0, 0.5]
    assert observed["values"].item() == 3


def test_importance_is_the_mean_over_samples(importance_of):
    found = importance_of([3.0, 0.5], 4, torch.zeros(2, 5), ROWS)
    assert found.tolist() == [[0.75], [0.125]]


def test_channels_of_a_convolution_are_in_dimension_one(see):
    outputs = torch.tensor([2.0, -1.0]).reshape(1, 2, 1, 1).expand(3, 2, 4, 4)
    observed = see(outputs, torch.zeros(2, 3, 3, 3), (1, -1, -1, -1), channel_dim=1)
    assert observed["total"].tolist() == [96.0, 0.0]
    assert observed["values"].item() == 48


def test_channels_of_a_transposed_convolution_are_dimension_one_of_its_weight(importance_of):
    size = (-1, 1, -1)
    found = importance_of([3.0, 1.0], 2, torch.zeros(5, 2, 3), size, output_dim=1, channel_dim=1)
    assert found.tolist() == [[[1.5], [0.5]]]


def test_a_grouped_transposed_convolution_takes_the_mean_over_its_groups(importance_of):
    # Two groups of two channels: 1 and 5, 2 and 4 share a weight index.
    size = (-1, 1, -1)
    total = [1.0, 2.0, 5.0, 4.0]
    found = importance_of(total, 1, torch.zeros(4, 2, 3), size, output_dim=1, channel_dim=1)
    assert found.tolist() == [[[3.0], [3.0]]]


def test_channels_of_an_embedding_are_its_columns(see, importance_of):
    table = torch.zeros(10, 2)
    observed = see(torch.tensor([1.0, -1.0]).expand(3, 4, 2), table, (-1, 1), output_dim=1)
    assert observed["total"].tolist() == [12.0, 0.0]
    assert importance_of([12.0, 0.0], 12, table, (-1, 1), output_dim=1).tolist() == [[1.0, 0.0]]


def test_a_bias_is_ranked_by_its_channels(importance_of):
    assert importance_of([3.0, 1.0], 2, torch.zeros(2), (1,)).tolist() == [1.5, 0.5]


def test_blocks_of_two_channels_have_their_mean(importance_of):
    found = importance_of([1.0, 3.0, 4.0, 8.0], 1, torch.zeros(4, 5), (2, -1))
    assert found.tolist() == [[2.0], [6.0]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_activations_are_summed_in_float32(see, dtype):
    outputs = torch.full((4096, 1), 64.0, dtype=dtype)
    observed = see(outputs, torch.zeros(1, 5), ROWS)
    assert observed["total"].dtype == torch.float32
    assert observed["total"].item() == 4096 * 64.0


def test_outputs_are_left_as_they_were(see):
    outputs = OUTPUTS.clone()
    see(outputs, torch.zeros(2, 5), ROWS)
    assert torch.equal(outputs, OUTPUTS)


def test_outputs_that_are_not_finite_are_an_error(see):
    with pytest.raises(ValueError, match="finite") as caught:
        see(torch.tensor([[1.0, float("nan")]]), torch.zeros(2, 5), ROWS)
    assert str(caught.value) == f"the outputs of its module are not finite; {CHECK_BATCHES}"


def test_outputs_that_are_not_the_channels_of_the_tensor_are_an_error(see):
    with pytest.raises(ValueError, match="channels") as caught:
        see(OUTPUTS, torch.zeros(6, 5), ROWS)
    assert str(caught.value) == (
        "its module has 2 output channels and the tensor has 6 along dimension 0; mean_activation "
        "needs one for each other"
    )


def test_parts_of_one_channel_score_alike(importance_of):
    found = importance_of([1.0, 3.0, 4.0, 8.0], 1, torch.zeros(4, 4), (2, 2))
    assert found.tolist() == [[2.0, 2.0], [6.0, 6.0]]


def test_one_block_for_the_whole_tensor_has_the_mean_of_all_channels(importance_of):
    assert importance_of([3.0, 1.0], 1, torch.zeros(2, 4), (-1, -1)).tolist() == [[2.0]]


def test_blocks_that_mix_all_channels_are_an_error(importance_of):
    with pytest.raises(tersely.PlanError) as caught:
        importance_of([3.0, 1.0], 2, torch.zeros(2, 4), (-1, 1))
    assert str(caught.value) == (
        "layer.weight: mean_activation ranks output channels, dimension 0, and its granularity "
        "puts all of them into every block; write granularity: default"
    )


def test_without_calibration_there_is_nothing_to_rank_by(target_of):
    with pytest.raises(tersely.SessionError) as caught:
        MeanActivation().importance(target_of("mean_activation", torch.zeros(2, 5), ROWS))
    assert str(caught.value) == (
        f"layer.weight: mean_activation {RANKS_BY_CALIBRATION}; {CALIBRATE_FIRST}"
    )
