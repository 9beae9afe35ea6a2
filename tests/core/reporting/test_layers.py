"""Layers compared with those of the dense model, by hand."""

import copy
import math

import pytest
import torch
from torch import nn

import tersely
from tersely.reporting.measuring.layers import compare_layers, count_macs, largest_weights

X = torch.tensor([[1.0, 2.0]])


def two_layers():
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, 1.0], [3.0, 3.0]]))
        model[1].weight.copy_(torch.tensor([[2.0, 2.0], [4.0, 4.0]]))
    return model


def half(model):
    entry = {"op_types": ["Linear"], "sparse_ratio": 0.5}
    return tersely.prune(model, [entry], algorithm="toy_rows")


def test_the_error_of_a_layer_is_that_on_the_inputs_of_the_dense_one(toy_pruners):
    dense = two_layers()
    compressed = copy.deepcopy(dense)
    half(compressed)

    first, second = compare_layers(dense, compressed, {"0": "weight", "1": "weight"}, X)

    # The first layer returns 3 and 9, and 0 and 9 when its first row is masked.
    assert first.signal_to_noise == pytest.approx(10 * math.log10(90 / 9), abs=0.005)
    # With the dense 3 and 9 the second returns 24 and 48, and 0 and 48.
    assert second.signal_to_noise == pytest.approx(10 * math.log10(2880 / 576), abs=0.005)


def test_a_layer_that_returns_the_same_is_exact():
    dense = two_layers()

    (layer,) = compare_layers(dense, copy.deepcopy(dense), {"0": ""}, X)

    assert (layer.is_exact, layer.signal_to_noise, layer.why) == (True, None, "")


def test_a_histogram_counts_the_weights_before_and_what_is_left(toy_pruners):
    dense = two_layers()
    compressed = copy.deepcopy(dense)
    half(compressed)

    (layer,) = compare_layers(dense, compressed, {"0": "weight"}, X)

    assert (layer.low, layer.high) == (1.0, 3.0)
    assert layer.before == (2, *[0] * 22, 2)
    assert layer.after == (*[0] * 23, 2)


def test_a_layer_of_other_shapes_says_so():
    dense = two_layers()
    small = nn.Sequential(nn.Linear(2, 1, bias=False), nn.Linear(1, 2, bias=False))

    (layer,) = compare_layers(dense, small, {"0": "weight"}, X)

    assert (layer.signal_to_noise, layer.why) == (None, "it is smaller now")


def test_a_layer_that_the_example_does_not_reach_says_so():
    dense = nn.ModuleDict({"used": nn.Linear(2, 2), "idle": nn.Linear(2, 2)})
    dense.forward = dense["used"].forward

    (layer,) = compare_layers(dense, copy.deepcopy(dense), {"idle": ""}, X)

    assert layer.why == "the example does not call it"


def test_modes_and_hooks_are_as_before():
    dense = two_layers()
    compressed = copy.deepcopy(dense)
    dense.train()
    compressed[1].eval()

    compare_layers(dense, compressed, {"0": "weight"}, X)

    assert [one.training for one in dense.modules()] == [True, True, True]
    assert [one.training for one in compressed.modules()] == [True, True, False]
    assert not dense[0]._forward_hooks
    assert not dense[0]._forward_pre_hooks


def test_macs_are_those_of_the_matrix_products():
    assert count_macs(two_layers(), torch.ones(3, 2)) == 3 * 2 * 2 * 2


def test_the_largest_parameter_stands_for_a_module():
    names = [("a", "bias", 4), ("a", "weight", 16), ("a", "_input_", 0), ("b", "_output_", 0)]
    assert largest_weights(names) == {"a": "weight", "b": ""}


class Latents(nn.Module):
    """Queries of its own, one set for each input, that attend to it."""

    def __init__(self):
        super().__init__()
        self.queries, self.score = nn.Parameter(torch.ones(5, 4)), nn.Linear(4, 3, bias=False)

    def forward(self, x):
        queries = self.score(self.queries.expand(len(x), -1, -1))
        return nn.functional.scaled_dot_product_attention(queries, x, x)


def test_macs_of_attention_count_also_where_a_module_reads_an_expanded_parameter():
    scores_and_values = 2 * 5 * 7 * (3 + 3)
    assert count_macs(Latents(), torch.ones(2, 7, 3)) == 2 * 5 * 4 * 3 + scores_and_values
