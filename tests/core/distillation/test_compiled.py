"""A compiled student is tapped as one that is not: same loss, same gradients."""

import copy

import pytest
import torch

import tersely


def attach(student, teacher):
    entry = {"op_names": ["0", "1"], "apply_method": "toy_square"}
    return tersely.attach(student, {"distillation": {"config_list": [entry]}}, teacher=teacher)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_compiled_student_has_the_same_loss_and_gradients(backend, toy_losses, student, teacher):
    torch.compiler.reset()
    twin = copy.deepcopy(student)
    session, other = attach(student, teacher), attach(twin, copy.deepcopy(teacher))
    compiled = torch.compile(student, backend=backend)
    for step in range(3):
        inputs = torch.randn(4, 2, generator=torch.Generator().manual_seed(step))
        losses = []
        for model, one in ((compiled, session), (twin, other)):
            model(inputs)
            one.teacher_forward(inputs)
            losses.append(one.loss())
            losses[-1].backward()
        torch.testing.assert_close(*losses)
    for left, right in zip(student.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(left.grad, right.grad)
