"""Losses of the student alone, which need no teacher (rule D5.1)."""

import pytest
import torch
from messages.planning import NO_MEANING_FOR_IT
from messages.sessions import GIVE_TEACHER, NO_TEACHER
from torch import nn

import tersely

ONES = torch.ones(1, 2)
ENERGY = {"op_names": ["0"], "apply_method": "toy_energy"}
# Layer 0 of the student puts out 2: a mean square of 4.


def test_a_loss_of_the_student_alone_needs_no_teacher(toy_losses, student):
    session = tersely.distill(student, [ENERGY])

    student(ONES)
    loss = session.loss()
    loss.backward()

    assert loss.item() == 4
    assert not session.needs_teacher
    assert student[0].weight.grad.tolist() == [[2, 2], [2, 2]]


def test_a_teacher_that_no_loss_needs_is_not_listened_to(toy_losses, student, teacher):
    session = tersely.distill(student, [ENERGY], teacher=teacher)

    student(ONES)

    assert session.loss().item() == 4
    assert not session.needs_teacher
    assert not teacher[0]._forward_hooks


def test_losses_with_and_without_teacher_add_up(toy_losses, student, teacher):
    square = {"op_names": ["1"], "apply_method": "toy_square"}
    session = tersely.distill(student, [ENERGY, square], teacher=teacher)

    student(ONES)
    session.teacher_forward(ONES)

    assert session.needs_teacher
    assert session.loss().item() == 4 + 16


def test_a_loss_that_compares_is_named_where_distill_has_no_teacher(toy_losses, student):
    square = {"op_names": ["1"], "apply_method": "toy_square"}

    with pytest.raises(tersely.AttachError) as caught:
        tersely.distill(student, [ENERGY, square])
    assert str(caught.value) == (
        "1._output_ learns by toy_square, which compares it with a teacher, and there is none; "
        "give tersely.distill(..., teacher=...), or attach the recipe without one and call "
        "session.use_teacher_cache(...)"
    )
    assert type(student[0]) is nn.Linear


def test_a_loss_that_compares_is_named_where_a_session_has_no_teacher(toy_losses, student):
    square = {"op_names": ["1"], "apply_method": "toy_square"}
    session = tersely.attach(student, {"distillation": {"config_list": [ENERGY, square]}})
    student(ONES)

    with pytest.raises(tersely.SessionError) as caught:
        session.loss()
    assert str(caught.value) == (
        "1._output_ learns by toy_square, which compares it with 1._output_ of a teacher, and "
        f"{NO_TEACHER}: {GIVE_TEACHER}, or call session.teacher_batch(...) with a cache of "
        "its targets"
    )


@pytest.mark.parametrize(("key", "value"), [("link", "1"), ("projection", "linear")])
def test_what_only_a_teacher_gives_a_meaning_is_refused(toy_losses, student, key, value):
    with pytest.raises(tersely.PlanError) as caught:
        tersely.plan(student, {"distillation": {"config_list": [{**ENERGY, key: value}]}})
    assert str(caught.value).endswith(
        f"0._output_: toy_energy is a loss of the student alone, so {key!r} "
        f"{NO_MEANING_FOR_IT}; remove it"
    )


def test_a_teacher_need_not_have_the_modules_of_such_a_loss(toy_losses, student):
    square = {"op_names": ["0"], "apply_method": "toy_square", "link": ""}
    energy = {**ENERGY, "op_names": ["1"]}
    session = tersely.distill(student, [square, energy], teacher=nn.Linear(2, 2))

    assert len(session.plan) == 2


def test_a_session_whose_losses_need_no_teacher_is_saved_and_loaded(
    toy_losses, student, filled, tmp_path
):
    tersely.distill(student, [ENERGY]).save(tmp_path)
    twin = filled(1.0)

    session = tersely.load_session(twin, tmp_path)
    twin(ONES)

    assert session.loss().item() == 4
