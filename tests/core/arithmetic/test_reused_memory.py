"""Memory of large results is written to again once nobody holds it, and never before."""

import copy
import pickle

import pytest
import torch
from torch import nn

from tersely.arithmetic.reused_memory import Reused, empty_like, multiply

LARGE = 2**21 + 8


@pytest.fixture
def value():
    return torch.arange(float(LARGE))


def test_memory_that_is_free_again_is_used_again(value):
    with Reused().offered():
        first = empty_like(value).data_ptr()
        other = torch.empty_like(value)  # what an allocator would give out next
        assert empty_like(value).data_ptr() == first
    assert other.data_ptr() != first


@pytest.mark.parametrize("held", [lambda one: one, lambda one: one[1:3], lambda one: one.numpy()])
def test_memory_that_somebody_holds_is_left_alone(value, held):
    with Reused().offered():
        kept = held(empty_like(value).fill_(7))
        empty_like(value).fill_(3)
    assert (kept == 7).all()


def test_what_a_graph_holds_is_left_alone(value):
    weight, factor = nn.Parameter(value), torch.full_like(value, 2)
    with Reused().offered():
        with torch.no_grad():
            product = multiply(weight, factor)
        output = (product * weight).sum()
        del product
        with torch.no_grad():
            multiply(weight, torch.zeros_like(value))
    output.backward()
    assert torch.equal(weight.grad, 2 * value)


def test_other_shapes_and_modes_have_memory_of_their_own(value):
    with Reused().offered():
        flat, wide = empty_like(value), empty_like(value.view(8, -1))
        with torch.inference_mode():
            inferred = empty_like(value)
    assert len({one.data_ptr() for one in (flat, wide, inferred)}) == 3
    assert [one.is_inference() for one in (flat, wide, inferred)] == [False, False, True]


def test_products_are_those_of_operators_with_their_gradients(value):
    weight, factor = nn.Parameter(value), (value % 2)
    with Reused().offered():
        with torch.no_grad():
            assert torch.equal(multiply(weight, factor), value * factor)
        multiply(weight, factor).sum().backward()
    assert torch.equal(weight.grad, factor)


def test_nothing_is_kept_where_nothing_is_offered_and_of_small_results(value):
    reused = Reused()
    with reused.offered():
        empty_like(value[:100])
    empty_like(value)
    assert not reused._kept


@pytest.mark.parametrize("twin", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_copies_come_without_memory(value, twin):
    reused = Reused()
    with reused.offered():
        empty_like(value)
    assert not twin(reused)._kept
