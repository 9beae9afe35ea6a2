"""Small tensors of one kind, found and stacked."""

import pytest
import torch
from torch import nn

from tersely.engine.targets import stacks
from tersely.engine.targets.stacks import SMALL, kinds_of, stacks_of


def test_tensors_of_one_shape_and_dtype_are_of_one_kind():
    tensors = [torch.ones(2), torch.ones(3), nn.Parameter(torch.ones(2)), torch.ones(2).double()]
    assert kinds_of(tensors) == ([[0, 2], [1], [3]], [])


@pytest.mark.parametrize(
    "tensor",
    [
        torch.ones(SMALL + 1),
        torch.ones(0),
        torch.ones(2, device="meta"),
        torch.ones(2).to_sparse(),
        torch.ones(2).as_subclass(type("Other", (torch.Tensor,), {})),
    ],
    ids=["large", "empty", "meta", "sparse", "subclass"],
)
def test_other_tensors_are_of_no_kind(tensor):
    assert kinds_of([torch.ones(2), tensor]) == ([[0]], [1])


def test_stacks_are_new_and_no_larger_than_a_few_megabytes(monkeypatch):
    monkeypatch.setattr(stacks, "_AT_A_TIME", 5)
    tensors = [nn.Parameter(torch.full((2,), float(number))) for number in range(6)]
    found = [(list(some), stack) for some, stack in stacks_of(tensors, [0, 1, 2, 4, 5])]
    assert [some for some, _ in found] == [[0, 1], [2, 4], [5]]
    assert [stack.tolist() for _, stack in found] == [
        [[0, 0], [1, 1]],
        [[2, 2], [4, 4]],
        [[5, 5]],
    ]
    assert not any(stack.requires_grad for _, stack in found)
    found[2][1].zero_()
    assert tensors[5].tolist() == [5, 5]
