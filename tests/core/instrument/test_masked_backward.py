"""Backward through large masked layers, in all the ways that autograd has."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

MASK = "_tersely_weight_mask"


@pytest.fixture
def layer(masked_layer):
    torch.manual_seed(0)
    # Two blocks of 512 rows, and one of 76.
    return masked_layer(nn.Linear(1024, 1100).double())


@pytest.fixture
def value():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(4, 1024, generator=generator, dtype=torch.float64, requires_grad=True)


def plain(layer, value):
    weight = layer._parameters["weight"] * layer._buffers[MASK]
    return functional.linear(value, weight, layer.bias)


def leaves(layer, value):
    return (value, *layer.parameters())


def assert_close(found, expected):
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def first(layer, output, value, **settings):
    return torch.autograd.grad(output.pow(3).sum(), leaves(layer, value), **settings)


def test_gradients_of_gradients_are_right(layer, value):
    def penalty(output):
        found = first(layer, output, value, create_graph=True)
        return torch.autograd.grad(sum(one.square().sum() for one in found), leaves(layer, value))

    found = penalty(layer(value))
    assert_close(found, penalty(plain(layer, value)))
    assert int(found[1][layer._buffers[MASK] == 0].count_nonzero()) == 0


def test_second_derivatives_are_those_of_finite_differences(layer, value):
    assert torch.autograd.gradgradcheck(lambda value: layer(value).square(), value, fast_mode=True)


def test_vectorized_gradients_are_right(layer, value):
    directions = torch.randn(3, 4, 1100, dtype=torch.float64)
    found, expected = (
        torch.autograd.grad(output, leaves(layer, value), directions, is_grads_batched=True)
        for output in (layer(value), plain(layer, value))
    )
    assert_close(found, expected)


def test_a_graph_that_is_kept_gives_the_same_again(layer, value):
    output = layer(value)
    once = first(layer, output, value, retain_graph=True)
    again = first(layer, output, value)
    assert all(torch.equal(one, other) for one, other in zip(once, again, strict=True))


def test_gradients_add_up_in_the_parameter(layer, value):
    weight = layer._parameters["weight"]
    layer(value).sum().backward()
    once = weight.grad.clone()
    layer(value).sum().backward()
    assert torch.equal(weight.grad, 2 * once)


def test_a_layer_that_is_called_twice_gets_both_gradients(masked_layer):
    layer = masked_layer(nn.Linear(1024, 1024).double())
    value = torch.randn(4, 1024, dtype=torch.float64, requires_grad=True)
    found = first(layer, layer(layer(value)), value)
    assert_close(found, first(layer, plain(layer, plain(layer, value)), value))


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_checkpointing_is_right(layer, value, use_reentrant):
    checkpoint(layer, value, use_reentrant=use_reentrant).pow(3).sum().backward()
    expected = first(layer, plain(layer, value), value)
    assert_close([leaf.grad for leaf in leaves(layer, value)], expected)


def test_what_is_saved_can_be_packed(layer, value):
    with torch.autograd.graph.saved_tensors_hooks(torch.clone, torch.clone):
        output = layer(value)
    assert_close(first(layer, output, value), first(layer, plain(layer, value), value))


def test_no_masked_copy_of_the_weight_is_kept(layer, value):
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(kept.append, lambda nothing: nothing):
        layer(value)
    own = {tensor.data_ptr() for tensor in (value, *layer._parameters.values())}
    own.add(layer._buffers[MASK].data_ptr())
    assert {tensor.data_ptr() for tensor in kept} <= own


def test_a_weight_that_is_written_before_backward_is_an_error_as_without_masks(layer, value):
    for one in (layer, nn.Linear(1024, 1100).double()):
        output = one(value)
        with torch.no_grad():
            one._parameters["weight"].mul_(2)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            output.sum().backward()


def test_a_mask_that_is_written_before_backward_is_an_error(layer, value):
    output = layer(value)
    layer._buffers[MASK].zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.sum().backward()


@pytest.mark.parametrize("through", ["data", "no_grad", "load_state_dict"])
def test_what_is_written_between_steps_counts(layer, value, through):
    weight, mask = layer._parameters["weight"], layer._buffers[MASK]
    layer(value).sum().backward()
    new = {"weight": weight.detach().flip(0), MASK: mask.flip(1)}
    if through == "data":
        weight.data.copy_(new["weight"])
        mask.data.copy_(new[MASK])
    elif through == "no_grad":
        with torch.no_grad():
            weight.copy_(new["weight"])
            mask.copy_(new[MASK])
    else:
        layer.load_state_dict({**layer.state_dict(), **new})
    torch.testing.assert_close(
        layer(value), functional.linear(value, new["weight"] * new[MASK], layer.bias)
    )
    assert_close(first(layer, layer(value), value), first(layer, plain(layer, value), value))


@pytest.mark.parametrize(
    "again",
    [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))],
    ids=["copy", "pickle"],
)
def test_a_copy_computes_the_same_and_apart(layer, value, again):
    output = layer(value)
    other = again(layer)
    assert torch.equal(other(value), output)
    output.sum().backward()
    assert other._parameters["weight"].grad is None


def test_hooks_on_the_parameter_see_the_masked_gradient(layer, value):
    seen = []
    layer._parameters["weight"].register_hook(seen.append)
    layer(value).sum().backward()
    assert int(seen[0][layer._buffers[MASK] == 0].count_nonzero()) == 0


def test_backward_under_autocast_and_modes_is_right(layer, value):
    expected = first(layer, plain(layer, value), value)
    output = layer(value)
    with torch.device("cpu"):
        found = first(layer, output, value)
    assert_close(found, expected)


def test_a_functional_call_reaches_tensors_that_are_no_leaves(layer, value):
    factor = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    tensors = {"weight": layer._parameters["weight"] * factor}
    output = torch.func.functional_call(layer, tensors, (value,))
    (found,) = torch.autograd.grad(output.sum(), factor)
    torch.testing.assert_close(found, functional.linear(value, layer.weight).sum())


def test_a_bias_that_learns_alone_gets_its_gradient(layer, value):
    layer._parameters["weight"].requires_grad_(False)
    layer(value.detach()).sum().backward()
    assert torch.equal(layer.bias.grad, torch.full((1100,), 4.0, dtype=torch.float64))
