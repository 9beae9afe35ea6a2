"""Losses and gradients of the reference implementation."""

import pytest
import torch

import tersely


@pytest.mark.golden("distil.pt", select=lambda case: case["kind"] == "loss")
def test_a_loss_and_its_gradient_are_the_references(case):
    loss = tersely.registry().losses[case["apply_method"]]
    student = case["student"].clone().requires_grad_()

    value = case["lam"] * loss(student, case["teacher"])
    value.backward()

    assert value.item() == pytest.approx(case["loss"], rel=1e-6)
    torch.testing.assert_close(student.grad, case["grad_student"])
