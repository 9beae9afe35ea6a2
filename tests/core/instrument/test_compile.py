"""Invariant 4: torch.compile in one graph, no recompilation on mask edits, export, functional calls."""

from collections import OrderedDict
from typing import NamedTuple

import pytest
import torch
from torch import nn
from torch.utils import _pytree as pytree

WEIGHTS = {"op_types": ["Linear"], "sparse_ratio": 0.5}
OUTPUT = {"op_names": ["act"], "target_names": ["_output_"], "sparse_ratio": 0.25}
INPUT = {"op_names": ["last"], "target_names": ["_input_"], "sparse_ratio": 0.25}
KINDS = pytest.mark.parametrize(
    "entry", [WEIGHTS, OUTPUT, INPUT], ids=["weight", "output", "input"]
)


class CountingBackend:
    """Runs graphs as they are and counts how many were made."""

    def __init__(self):
        self.graphs = 0

    def __call__(self, graph, inputs):
        self.graphs += 1
        return graph.forward


@pytest.fixture
def backend():
    torch.compiler.reset()
    yield CountingBackend()
    torch.compiler.reset()


@KINDS
def test_a_masked_model_compiles_as_one_graph(net, x, prune, backend, entry):
    prune(net, entry, data=[x])
    compiled = torch.compile(net, fullgraph=True, backend=backend)
    torch.testing.assert_close(compiled(x), net(x))
    assert backend.graphs == 1


@KINDS
def test_editing_a_mask_in_place_does_not_recompile(net, x, prune, backend, entry):
    prune(net, entry, data=[x])
    compiled = torch.compile(net, fullgraph=True, backend=backend)
    before = compiled(x)
    for name, buffer in net.named_buffers():
        if "_tersely_" in name:
            buffer.zero_()
    after = compiled(x)
    assert backend.graphs == 1
    assert not torch.equal(before, after)
    torch.testing.assert_close(after, net(x))


@KINDS
def test_compressing_again_does_not_recompile(net, x, prune, backend, entry):
    session = prune(net, entry, data=[x])
    compiled = torch.compile(net, fullgraph=True, backend=backend)
    compiled(x)
    with torch.no_grad():
        net.first.weight.copy_(net.first.weight.flip(0))
    session.calibrate([x])
    session.compress()
    torch.testing.assert_close(compiled(x), net(x))
    assert backend.graphs == 1


@KINDS
def test_gradients_of_a_compiled_model_are_those_of_the_eager_one(net, x, prune, backend, entry):
    prune(net, entry, data=[x])
    compiled = torch.compile(net, fullgraph=True, backend=backend)
    compiled(x).square().sum().backward()
    found = [parameter.grad.clone() for parameter in net.parameters()]
    net.zero_grad()
    net(x).square().sum().backward()
    for gradient, parameter in zip(found, net.parameters(), strict=True):
        torch.testing.assert_close(gradient, parameter.grad)


def test_a_training_step_with_a_schedule_compiles_once(net, x, backend):
    import tersely

    recipe = {
        "pruning": {
            "algorithm": "toy",
            "schedule": {"name": "toy_line", "every": 1, "times": 3},
            "config_list": [WEIGHTS],
        }
    }
    session = tersely.attach(net, recipe)
    session.compress()
    compiled = torch.compile(net, fullgraph=True, backend=backend)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for _ in range(4):
        compiled(x).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        session.step()
    torch.testing.assert_close(compiled(x), net(x))
    assert backend.graphs == 1


def test_a_keyword_argument_and_a_dictionary_output_compile(backend, x, prune):
    class Model(nn.Module):
        def forward(self, *, value):
            return {"first": value * 2, "second": value}

    model = Model()
    prune(
        model,
        {
            "op_names": [""],
            "target_names": ["_input_value", "_output_second"],
            "sparse_ratio": 0.5,
        },
        data=[{"value": x}],
    )
    compiled = torch.compile(model, fullgraph=True, backend=backend)
    torch.testing.assert_close(compiled(value=x), model(value=x))
    assert backend.graphs == 1


class Returning(nn.Module):
    """Returns its input and twice that in a container."""

    def __init__(self, container):
        super().__init__()
        self.container = container

    def forward(self, value):
        return self.container(value, 2 * value)


class Pair(NamedTuple):
    one: torch.Tensor
    two: torch.Tensor


def ordered(one, two):
    return OrderedDict(one=one, two=two)


@pytest.mark.parametrize("container", [Pair, ordered])
def test_a_container_that_keeps_its_type_compiles(backend, x, prune, container):
    model = Returning(container)
    entry = {"op_names": [""], "target_names": ["_output_two"], "sparse_ratio": 0.5}
    prune(model, entry, data=[x])
    found = torch.compile(model, fullgraph=True, backend=backend)(x)
    expected = model(x)
    assert type(found) is type(expected)
    for one, other in zip(pytree.tree_leaves(found), pytree.tree_leaves(expected), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("strict", [True, False])
@KINDS
def test_a_masked_model_exports(net, x, prune, entry, strict):
    prune(net, entry, data=[x])
    net.eval()
    program = torch.export.export(net, (x,), strict=strict)
    torch.testing.assert_close(program.module()(x), net(x))


@KINDS
def test_a_functional_call_uses_the_parameters_it_is_given(net, x, prune, entry):
    prune(net, entry, data=[x])
    twice = {name: value * 2 for name, value in net.named_parameters()}
    found = torch.func.functional_call(net, twice, (x,))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(2)
    assert torch.equal(found, net(x))


def test_a_functional_call_uses_the_masks_it_is_given(net, x, prune):
    prune(net, WEIGHTS)
    ones = {name: torch.ones_like(buffer) for name, buffer in net.named_buffers()}
    found = torch.func.functional_call(net, ones, (x,))
    weight, bias = net._modules["first"]._parameters.values()
    hidden = torch.relu(torch.nn.functional.linear(x, weight, bias))
    weight, bias = net._modules["last"]._parameters.values()
    assert torch.equal(found, torch.nn.functional.linear(hidden, weight, bias))


def test_vmap_runs_over_stacked_parameters(net, x, masked):
    parameters = dict(net.named_parameters())
    stacked = {name: torch.stack([value, 2 * value]) for name, value in parameters.items()}
    found = torch.vmap(lambda one: torch.func.functional_call(net, one, (x,)))(stacked)
    torch.testing.assert_close(found[0], net(x))


def test_functional_gradients_vanish_where_a_weight_is_masked(net, x, masked):
    parameters = dict(net.named_parameters())
    gradients = torch.func.grad(
        lambda one: torch.func.functional_call(net, one, (x,)).square().sum()
    )(parameters)
    kept = masked.masks()["last"]["weight"]
    assert int(gradients["last.weight"][~kept].count_nonzero()) == 0
    assert int(gradients["last.weight"][kept].count_nonzero()) > 0
