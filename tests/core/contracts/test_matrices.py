"""Weights as matrices, and the vectors that they multiply."""

import pytest
import torch
from messages.sessions import features
from torch import nn

import tersely
from tersely.contracts.matrices import from_matrices, input_rows, matrix_layout, to_matrices

LAYERS = {
    "linear": lambda: nn.Linear(3, 2),
    "convolution": lambda: nn.Conv2d(4, 6, (2, 3)),
    "grouped convolution": lambda: nn.Conv1d(4, 6, 3, groups=2),
    "transposed convolution": lambda: nn.ConvTranspose2d(4, 6, (2, 3)),
    "grouped transposed convolution": lambda: nn.ConvTranspose1d(4, 6, 3, groups=2),
}


@pytest.fixture
def target_of(toy_pruners):
    """Make the target that is a module's weight: ``target_of(module)``."""

    def target_of(module):
        entry = {"op_names": ["0"], "target_names": ["weight"], "sparse_ratio": 0.5}
        recipe = {"pruning": {"algorithm": "toy", "config_list": [entry]}}
        [plan] = tersely.plan(nn.Sequential(module), recipe)
        return tersely.PruningTarget(
            plan=plan, tensor=module.weight, blocks=plan.blocks, module=module
        )

    return target_of


@pytest.fixture
def rows_of(target_of):
    """Every vector that a module's weight multiplies, shape (groups, vectors, columns)."""

    def rows_of(module, inputs, *, at_a_time=1 << 20):
        return torch.cat([*input_rows(inputs, target_of(module), at_a_time=at_a_time)], 1)

    return rows_of


def numbered(module):
    with torch.no_grad():
        module.weight.copy_(torch.arange(module.weight.numel()).view_as(module.weight))
    return module


def test_a_linear_weight_is_one_matrix(target_of):
    module = numbered(nn.Linear(3, 2))

    found = to_matrices(module.weight, matrix_layout(target_of(module)))

    assert found.tolist() == [[[0, 1, 2], [3, 4, 5]]]


def test_input_channels_are_the_innermost_columns_of_a_convolution(target_of):
    module = numbered(nn.Conv1d(2, 2, 3))

    found = to_matrices(module.weight, matrix_layout(target_of(module)))

    # [output][input][position] is 6 * output + 3 * input + position.
    assert found.tolist() == [[[0, 3, 1, 4, 2, 5], [6, 9, 7, 10, 8, 11]]]


def test_every_group_of_a_convolution_is_a_matrix(target_of):
    module = numbered(nn.Conv1d(2, 2, 2, groups=2))

    found = to_matrices(module.weight, matrix_layout(target_of(module)))

    assert found.tolist() == [[[0, 1]], [[2, 3]]]


def test_rows_of_a_transposed_convolution_are_its_outputs_at_every_position(target_of):
    module = numbered(nn.ConvTranspose1d(2, 1, 2))

    found = to_matrices(module.weight, matrix_layout(target_of(module)))

    # [input][output][position] is 2 * input + position.
    assert found.tolist() == [[[0, 2], [1, 3]]]


@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
def test_matrices_become_the_weight_again(target_of, make):
    module = numbered(make())
    layout = matrix_layout(target_of(module))

    found = from_matrices(to_matrices(module.weight, layout), layout, module.weight.shape)

    assert torch.equal(found, module.weight)


def test_the_vectors_of_a_linear_layer_are_its_inputs(rows_of):
    inputs = torch.arange(12.0).view(2, 2, 3)

    assert rows_of(nn.Linear(3, 2), inputs).tolist() == [inputs.view(4, 3).tolist()]


def test_the_vectors_of_a_convolution_are_what_each_position_sees(rows_of):
    inputs = torch.tensor([[[1.0, 2.0, 3.0, 4.0, 5.0]]])

    found = rows_of(nn.Conv1d(1, 1, 2, stride=2, padding=1, dilation=2), inputs)

    assert found.tolist() == [[[0, 2], [2, 4], [4, 0]]]


@pytest.mark.filterwarnings("ignore:Using padding='same':UserWarning")
def test_an_even_kernel_of_the_same_size_sees_one_zero_more_at_the_end(rows_of):
    inputs = torch.tensor([[[1.0, 2.0, 3.0]]])

    assert rows_of(nn.Conv1d(1, 1, 2, padding="same"), inputs).tolist() == [
        [[1, 2], [2, 3], [3, 0]]
    ]


CONVOLUTIONS = {
    "same, even kernels": {"kernel_size": (2, 4), "padding": "same"},
    "same, dilated": {"kernel_size": (4, 3), "padding": "same", "dilation": (1, 2)},
    "valid": {"kernel_size": (2, 3), "padding": "valid"},
    "as given": {"kernel_size": (2, 3), "padding": (1, 2), "stride": (2, 1)},
    "circular": {"kernel_size": 3, "padding": 1, "padding_mode": "circular"},
    "reflected, same": {"kernel_size": 2, "padding": "same", "padding_mode": "reflect"},
    "grouped": {"kernel_size": 2, "padding": "same", "groups": 2},
}


@pytest.mark.filterwarnings("ignore:Using padding='same':UserWarning")
@pytest.mark.parametrize("keys", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_matrices_times_vectors_are_what_the_convolution_computes(target_of, rows_of, keys):
    torch.manual_seed(0)
    module = nn.Conv2d(4, 6, bias=False, **keys).double()
    inputs = torch.randn(3, 4, 5, 6).double()
    expected = module(inputs)

    matrices = to_matrices(module.weight, matrix_layout(target_of(module)))
    found = matrices @ rows_of(module, inputs).mT

    batch, channels, *places = expected.shape
    found = found.reshape(channels, batch, *places).movedim(0, 1)
    torch.testing.assert_close(found, expected)


def test_a_sample_without_a_batch_is_one_of_a_batch(rows_of):
    module, sample = nn.Conv1d(1, 1, 2), torch.tensor([[1.0, 2.0, 3.0]])

    assert rows_of(module, sample).tolist() == rows_of(module, sample[None]).tolist()


def test_the_vectors_of_a_transposed_convolution_are_the_inputs_of_each_group(rows_of):
    inputs = torch.tensor([[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [7.0, 8.0]]])

    found = rows_of(nn.ConvTranspose1d(4, 2, 3, groups=2), inputs)

    assert found.tolist() == [[[1, 3], [2, 4]], [[5, 7], [6, 8]]]


def test_vectors_come_in_parts_of_at_most_as_many_elements_as_asked(target_of):
    inputs = torch.arange(15.0).view(5, 3)

    parts = [*input_rows(inputs, target_of(nn.Linear(3, 2)), at_a_time=7)]

    assert [part.shape for part in parts] == [(1, 2, 3), (1, 2, 3), (1, 1, 3)]
    assert torch.cat(parts, 1).tolist() == [inputs.tolist()]


@pytest.mark.parametrize(
    ("given", "computed"),
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_vectors_are_of_a_type_that_sums_well(rows_of, given, computed):
    assert rows_of(nn.Linear(3, 2), torch.ones(1, 3, dtype=given)).dtype == computed


def test_integers_are_no_inputs_to_compare_with(rows_of):
    with pytest.raises(ValueError, match=r"are torch\.int64; expected floating point"):
        rows_of(nn.Linear(3, 2), torch.ones(1, 3, dtype=torch.int64))


def test_inputs_of_another_width_name_both_widths(rows_of):
    with pytest.raises(ValueError, match=features(4, 3)):
        rows_of(nn.Linear(3, 2), torch.ones(1, 4))


@pytest.mark.parametrize(
    ("module", "shape"), [(nn.LayerNorm(3), r"\[3\]"), (nn.Embedding(3, 2), r"\[3, 2\]")]
)
def test_what_multiplies_no_inputs_is_refused(target_of, module, shape):
    with pytest.raises(ValueError, match=f"found weight of shape {shape}"):
        matrix_layout(target_of(module))
