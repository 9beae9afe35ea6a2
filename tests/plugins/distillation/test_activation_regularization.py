"""Activation regularization, by hand."""

import pytest
import torch

from tersely_distillation.activation_regularization import activation_regularization


def test_it_is_the_mean_square():
    loss = activation_regularization(torch.tensor([[1.0, 3.0], [0.0, 2.0]]))

    assert loss.item() == 14 / 4


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_squared_in_float32(dtype):
    loss = activation_regularization(torch.full((2, 3), 512.0, dtype=dtype))

    assert (loss.dtype, loss.item()) == (torch.float32, 512.0**2)


def test_nothing_has_the_loss_zero():
    assert activation_regularization(torch.zeros(0, 3)).item() == 0
