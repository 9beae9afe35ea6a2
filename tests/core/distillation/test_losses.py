"""The distillation loss of a session, worked out by hand (rules D1 to D4)."""

import copy

import pytest
import torch
from messages.planning import LINK_ANOTHER, NOT_IN_TEACHER
from messages.sessions import NOT_SEEN_OF_STUDENT, NOT_SEEN_OF_TEACHER
from torch import nn

import tersely

ONES = torch.ones(1, 2)
# Layer 0 of the student puts out 2, that of the teacher 6: a square of 16.


def run(session, batch=ONES):
    session.model(batch)
    session.teacher_forward(batch)


def test_the_loss_is_lambda_times_the_loss_of_every_target(distilled):
    session = distilled(**{"lambda": 0.5})

    run(session)

    assert session.loss().item() == 8


def test_lambda_is_one_by_default(distilled):
    session = distilled()

    run(session)

    assert session.loss().item() == 16


def test_the_smallest_loss_of_several_links_counts(distilled, teacher):
    with torch.no_grad():
        teacher[1].weight.mul_(0.5)  # puts out 3: a square of 1
    session = distilled(link=["0", "1"])

    run(session)

    assert session.loss().item() == 1


def test_options_reach_the_loss(distilled):
    session = distilled(apply_method={"toy_sum": {"extra": 100.0}})

    run(session)

    # 2 + 2 of the student, 6 + 6 of the teacher, and the option
    assert session.loss().item() == 4 - 12 + 100


def test_task_loss_weight_scales_the_task_loss_alone(toy_losses, student, teacher):
    entry = {"op_names": ["0"], "apply_method": "toy_square"}
    stage = {"task_loss_weight": 0.25, "config_list": [entry]}
    session = tersely.attach(student, {"distillation": stage}, teacher=teacher)

    run(session)

    assert session.total_loss(torch.tensor(4.0)).item() == 1 + 16


def test_the_task_loss_weighs_what_the_stage_of_the_current_period_says(
    toy_losses, student, teacher
):
    def stage(weight, name, target):
        entry = {"op_names": [name], "target_names": [target], "apply_method": "toy_square"}
        return {"task_loss_weight": weight, "config_list": [entry]}

    stages = [
        {"until": 1, "distillation": stage(0.25, "0", "_output_")},
        {"until": 2, "distillation": stage(0.5, "1", "_input_")},
        {"distillation": stage(0.75, "1", "_output_")},
    ]
    session = tersely.attach(student, {"stages": stages}, teacher=teacher)
    found = []

    for _ in stages:
        run(session)
        found.append(session.total_loss(torch.tensor(4.0)).item())
        session.step()

    # 2 against 6 is a square of 16 in all of them.
    assert found == [1 + 16, 2 + 16, 3 + 16]


@pytest.mark.parametrize("place", [0, 1])
def test_a_task_loss_weight_that_one_of_two_stages_states_counts(
    toy_losses, student, teacher, place
):
    stages = [
        {"config_list": [{"op_names": ["0"], "target_names": [target], "apply_method": "toy_sum"}]}
        for target in ("_output_", "_input_")
    ]
    stages[place]["task_loss_weight"] = 0.0
    session = tersely.attach(student, {"distillation": stages}, teacher=teacher)

    run(session)

    # 2 + 2 of the student less 6 + 6 of the teacher; the inputs are the same.
    assert session.total_loss(torch.tensor(1000.0)).item() == -8


def test_gradients_reach_the_student_and_not_the_teacher(distilled, student, teacher):
    session = distilled()

    run(session)
    session.loss().backward()

    # d/dw of the mean over 2 outputs of (2 - 6)^2 is -4 for each of them, times the input 1
    assert student[0].weight.grad.tolist() == [[-4, -4], [-4, -4]]
    assert teacher[0].weight.grad is None


def test_an_input_is_distilled(distilled):
    session = distilled(op_names=["1"], target_names=["_input_"])

    run(session)

    assert session.loss().item() == 16


def test_a_parameter_is_distilled(distilled, student):
    session = distilled(target_names=["weight"])

    run(session)
    loss = session.loss()
    loss.backward()

    assert loss.item() == 4  # 1 against 3
    # the mean of four squares: 2 * (1 - 3) / 4
    assert student[0].weight.grad.tolist() == [[-1, -1], [-1, -1]]


def test_values_of_dictionaries_and_of_tuples_in_them_are_distilled(toy_losses):
    class Hidden(nn.Module):
        def __init__(self, factor):
            super().__init__()
            self.factor = nn.Parameter(torch.tensor(factor))

        def forward(self, x):
            first = x * self.factor
            return {"logits": first * 2, "hidden_states": (x, first)}

    student, teacher = nn.Sequential(Hidden(1.0)), nn.Sequential(Hidden(3.0))
    targets = ["_output_logits", "_output_hidden_states_1"]
    entry = {"op_names": ["0"], "target_names": targets, "apply_method": "toy_square"}
    session = tersely.attach(student, {"distillation": {"config_list": [entry]}}, teacher=teacher)

    run(session)

    assert session.loss().item() == 16 + 4  # (2 - 6)^2 and (1 - 3)^2


def test_a_step_without_the_teacher_is_refused(distilled, student):
    session = distilled()

    student(ONES)

    with pytest.raises(tersely.SessionError) as caught:
        session.loss()
    assert str(caught.value) == (
        f"0._output_ {NOT_SEEN_OF_TEACHER} since the last loss: call "
        "session.teacher_forward(...) with the same batch before session.loss()"
    )


def test_a_step_without_the_student_is_refused(distilled):
    session = distilled()

    session.teacher_forward(ONES)

    with pytest.raises(tersely.SessionError, match=f"0\\._output_ {NOT_SEEN_OF_STUDENT}"):
        session.loss()


def test_a_loss_uses_up_what_was_seen(distilled):
    session = distilled()
    run(session)
    session.loss()

    with pytest.raises(tersely.SessionError, match="not seen since the last loss"):
        session.loss()


def test_taps_keep_nothing_after_the_loss(distilled):
    session = distilled()
    run(session)

    session.loss()

    (pair,) = session._engines.distillation.pairs
    assert all(tap.value is None for tap in pair.taps())


def test_evaluation_leaves_nothing_behind(distilled, student):
    session = distilled()

    with torch.no_grad():
        student(ONES)

    (pair,) = session._engines.distillation.pairs
    assert all(tap.value is None for tap in pair.taps())


def test_shapes_that_do_not_go_together_name_both_targets(distilled):
    session = distilled()
    session.model(ONES)
    session.teacher_forward(torch.ones(3, 2))

    with pytest.raises(tersely.SessionError) as caught:
        session.loss()
    assert str(caught.value) == (
        "0._output_ of the student and 0._output_ of the teacher: shapes [1, 2] and [3, 2] differ"
    )


def test_a_loss_that_is_no_scalar_is_the_plugin_s_fault(distilled):
    session = distilled(apply_method="toy_broken")
    run(session)

    with pytest.raises(tersely.PluginError, match=r"toy_broken returned \[1, 2\] for 0\._output_"):
        session.loss()


def test_a_loss_that_fails_is_named_with_both_targets_and_both_shapes(distilled):
    session = distilled(apply_method="toy_fails")
    run(session)

    with pytest.raises(tersely.PluginError) as caught:
        session.loss()
    assert str(caught.value).startswith(
        "the loss toy_fails failed on 0._output_ of the student and 0._output_ of the teacher, "
        "shapes (1, 2) and (1, 2): RuntimeError: mat1 and mat2 shapes cannot be multiplied"
    )


def test_a_parameter_that_the_teacher_lacks_is_refused(toy_losses, student):
    entry = {"op_names": ["0"], "target_names": ["weight"], "apply_method": "toy_square"}
    stage = {"distillation": {"config_list": [entry]}}
    plan = tersely.plan(student, stage)  # without the teacher, links cannot be checked
    session = tersely.attach(student, plan, teacher=nn.Sequential(nn.ReLU()))

    with pytest.raises(tersely.SessionError) as caught:
        session.loss()
    assert str(caught.value) == (
        f"0.weight is linked to 0.weight, which {NOT_IN_TEACHER}; {LINK_ANOTHER}"
    )


def test_a_teacher_that_is_the_student_is_refused_and_the_model_untouched(distilled, student):
    with pytest.raises(tersely.AttachError, match="the teacher shares modules with the model"):
        distilled(teacher=student)

    assert type(student[0]) is nn.Linear


def test_distill_is_one_call(toy_losses, student, teacher):
    entry = {"op_names": ["0"], "apply_method": "toy_square"}

    session = tersely.distill(student, [entry], teacher=teacher)

    run(session)
    assert session.loss().item() == 16


def test_finalize_and_detach_leave_both_models_plain(distilled, student, teacher):
    dense = copy.deepcopy(student.state_dict())
    session = distilled()
    run(session)

    session.detach()

    assert type(student[0]) is nn.Linear
    assert not teacher[0]._forward_hooks
    for name, tensor in student.state_dict().items():
        assert torch.equal(tensor, dense[name])


def test_a_model_is_copied_with_a_full_tap(distilled, student):
    session = distilled()
    run(session)

    twin = copy.deepcopy(student)

    assert torch.equal(twin(ONES), student(ONES))


def test_a_teacher_of_another_dtype_and_mode_is_run_in_evaluation(distilled, teacher):
    teacher.train()
    session = distilled()

    session.teacher_forward(ONES)

    assert teacher.training
    (pair,) = session._engines.distillation.pairs
    assert not pair.sides[0].teachers["0"].value.requires_grad
