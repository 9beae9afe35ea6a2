"""Distilling as the reference implementation did: losses and weights, step by step."""

import itertools

import pytest
import torch

import tersely


@pytest.mark.golden("distil.pt", select=lambda case: case["kind"] == "train")
def test_losses_and_weights_are_the_reference_s(golden, case):
    student = golden.model(case)
    teacher = golden.models.build(case["teacher"], 0, **case.get("teacher_args", {}))
    teacher.load_state_dict(case["teacher_state_dict"])
    recipe = {
        "distillation": {
            "task_loss_weight": case["origin_loss_lambda"],
            "config_list": case["config_list"],
        }
    }
    session = tersely.attach(student, recipe, teacher=teacher)
    optimizer = torch.optim.SGD(student.parameters(), lr=case["lr"])
    losses = []
    student.train()
    for batch in itertools.islice(itertools.cycle(case["train"]), case["steps"]):
        optimizer.zero_grad()
        task_loss = golden.models.loss_fn(batch, student)
        session.teacher_forward(batch)
        loss = session.total_loss(task_loss)
        loss.backward()
        optimizer.step()
        session.step()
        losses.append(loss.item())

    assert losses == pytest.approx(case["losses"], rel=1e-5)
    for name, parameter in student.named_parameters():
        torch.testing.assert_close(parameter.detach(), case["final_params"][name])
