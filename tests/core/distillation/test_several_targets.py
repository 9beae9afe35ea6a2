"""Losses that take all targets of an entry at once, such as flows between two layers."""

import pytest
import torch
from messages.sessions import NOT_SEEN_OF_STUDENT
from torch import nn

import tersely
from tersely.testing import LossContract

ONES = torch.ones(1, 2)


def flow(student, teacher):
    (first, second), (theirs, other) = student, teacher
    return (first.T @ second - theirs.T @ other).square().mean()


def spread(student, teacher):
    assert teacher is None
    return torch.stack([one.mean() for one in student]).square().mean()


@pytest.fixture(autouse=True)
def flows(provide):
    infos = [
        tersely.LossInfo(
            name="toy_flow", implementation="tersely_toy_flows:flow", summary="Flow.", targets=2
        ),
        tersely.LossInfo(
            name="toy_spread",
            implementation="tersely_toy_flows:spread",
            summary="Spread.",
            needs="nothing",
            targets=None,
        ),
    ]

    with provide("tersely_toy_flows", *infos, flow=flow, spread=spread):
        yield


@pytest.fixture
def deep():
    """Layers that put out 2, 4 and 4; the second one doubles."""
    net = nn.Sequential(*(nn.Linear(2, 2, bias=False) for _ in range(3)))
    with torch.no_grad():
        net[0].weight.fill_(1.0)
        net[1].weight.copy_(2 * torch.eye(2))
        net[2].weight.copy_(torch.eye(2))
    return net


def problem_of(model, **keys):
    entry = {"apply_method": "toy_flow", **keys}
    with pytest.raises(tersely.PlanError) as caught:
        tersely.plan(model, {"distillation": {"config_list": [entry]}})
    return str(caught.value)


def test_a_loss_takes_two_targets_and_their_teachers_in_the_order_written(deep, teacher):
    entry = {"op_names": ["1", "0"], "link": ["0", "1"], "apply_method": "toy_flow", "lambda": 0.5}
    session = tersely.distill(deep, [entry], teacher=teacher)
    with torch.no_grad():
        teacher[1].weight.mul_(0.5)

    deep(ONES)
    session.teacher_forward(ONES)

    # 4 * 2 of the student against 6 * 3 of the teacher, and half of the square.
    assert session.loss().item() == 50
    assert [(one.name, one.distillation.links) for one in session.plan] == [
        ("1._output_", ("0",)),
        ("0._output_", ("1",)),
    ]


def test_links_are_the_modules_of_the_same_names_by_default(deep, filled):
    session = tersely.distill(
        deep, [{"op_names": ["0", "1"], "apply_method": "toy_flow"}], teacher=filled(3.0)
    )

    deep(ONES)
    session.teacher_forward(ONES)

    assert session.loss().item() == (8 - 36) ** 2


def test_a_loss_without_teacher_takes_all_that_an_entry_has(deep):
    session = tersely.distill(deep, [{"op_types": ["Linear"], "apply_method": "toy_spread"}])

    deep(ONES)

    assert session.loss().item() == pytest.approx((4 + 16 + 16) / 3)


def test_a_saved_plan_keeps_order_and_links(deep, teacher, tmp_path):
    entry = {"op_names": ["1", "0"], "link": ["0", "1"], "apply_method": "toy_flow"}
    session = tersely.distill(deep, [entry], teacher=teacher)
    session.save(tmp_path)
    session.detach()

    loaded = tersely.load_session(deep, tmp_path, teacher=teacher)
    deep(ONES)
    loaded.teacher_forward(ONES)

    assert loaded.loss().item() == (8 - 36) ** 2
    assert [one.name for one in loaded.plan] == ["1._output_", "0._output_"]


def test_a_side_that_was_not_seen_is_named(deep, teacher):
    entry = {"op_names": ["0", "1"], "apply_method": "toy_flow"}
    session = tersely.distill(deep, [entry], teacher=teacher)
    deep[0](ONES)
    session.teacher_forward(ONES)

    with pytest.raises(tersely.SessionError, match=f"1\\._output_ {NOT_SEEN_OF_STUDENT}"):
        session.loss()


def test_another_number_of_targets_is_refused(deep):
    assert (
        "toy_flow takes 2 targets of an entry together, and this entry has 3 for it: 0._output_, "
        "1._output_, 2._output_; write one entry for each 2"
    ) in problem_of(deep, op_types=["Linear"])


def test_another_number_of_links_is_refused(deep):
    assert (
        "'link' names 1 modules of the teacher for 2 of the student (0, 1); write one for each, in "
        "the same order"
    ) in problem_of(deep, op_names=["0", "1"], link="0")


def test_a_projection_and_two_lambdas_are_refused(deep):
    assert "which 'projection' cannot map" in problem_of(
        deep, op_names=["0", "1"], projection="linear"
    )
    assert "has one 'lambda'" in problem_of(
        deep,
        op_names=["1"],
        target_names=["_input_", "_output_"],
        target_settings={"_input_": {"lambda": 2}},
    )


@pytest.mark.parametrize("check", ["scalar", "gradient", "state", "batch_size", "zeros"])
def test_the_contract_gives_such_losses_as_many_targets_as_they_take(check):
    getattr(LossContract("toy_spread"), f"check_{check}")()
