"""Which call needs which other one first, and calls that come twice; whole messages."""

import pytest
import torch
from messages.files import NOTHING_TO
from messages.planning import NO_TARGET_REACHED, NONE_THERE
from messages.sessions import CALIBRATE_FIRST, COMPRESS_FIRST, GIVE_TEACHER, NO_TEACHER
from torch import nn

import tersely

pytestmark = pytest.mark.usefixtures("toy_pruners")

CONFIG = [{"op_types": ["Linear"], "target_names": ["weight"], "sparse_ratio": 0.5}]


@pytest.fixture
def attached(build):
    return tersely.attach(build(), {"pruning": {"algorithm": "toy", "config_list": CONFIG}})


@pytest.fixture
def pruned(build):
    return tersely.prune(build(), CONFIG, algorithm="toy")


def message(call, *arguments):
    with pytest.raises(tersely.SessionError) as caught:
        call(*arguments)
    return str(caught.value)


def test_step_needs_compress_first(attached):
    assert message(attached.step) == (
        "step() found no masks in force; call session.compress() before the training loop"
    )
    assert attached.steps == 0


def test_finalize_needs_compress_first(attached):
    assert message(attached.finalize) == (
        f"finalize() found nothing in force; {COMPRESS_FIRST}, or session.detach() to get the "
        "dense model back"
    )
    assert "_tersely_instruments" in vars(attached.model[0])


def test_compress_needs_calibrate_first_where_an_output_is_ranked(build):
    config_list = [{"op_names": ["1"], "target_names": ["_output_"], "sparse_ratio": 0.5}]
    session = tersely.attach(build(), {"pruning": {"algorithm": "toy", "config_list": config_list}})
    assert message(session.compress) == (
        f"1._output_ is ranked by what calibration sees of it; {CALIBRATE_FIRST}"
    )


CALLS = [
    ("calibrate", ([torch.zeros(1, 4)],)),
    ("compress", ()),
    ("step", ()),
    ("loss", ()),
    ("total_loss", (torch.zeros(()),)),
    ("parameters", ()),
    ("teacher_forward", (torch.zeros(1, 4),)),
    ("save", ("never-written",)),
    ("state", ()),
    ("restore", ({}, {})),
    ("finalize", ()),
]


@pytest.mark.parametrize(("call", "arguments"), CALLS, ids=[call for call, _ in CALLS])
@pytest.mark.parametrize(("end", "state"), [("finalize", "finalized"), ("detach", "detached")])
def test_a_finished_session_refuses_to_go_on(pruned, call, arguments, end, state):
    getattr(pruned, end)()
    shown = "loss" if call == "total_loss" else call
    assert message(getattr(pruned, call), *arguments) == (
        f"{shown}() needs an attached session, this one was {state}; call tersely.attach(model, "
        f"recipe) for a new one"
    )


def test_a_finalized_session_cannot_be_detached(pruned):
    pruned.finalize()
    assert message(pruned.detach) == (
        "detach() needs an attached session, this one was finalized; call tersely.attach(model, "
        "recipe) for a new one"
    )


def test_detaching_twice_is_harmless(pruned):
    assert pruned.detach() is pruned.detach()


@pytest.mark.parametrize("call", ["masks", "sparsity", "qparams", "report"])
def test_a_detached_session_has_nothing_to_show(pruned, call):
    pruned.detach()
    assert message(getattr(pruned, call)) == (
        f"{call}() has nothing to show: the session was detached and its masks are gone; save() "
        f"before detach() to keep them"
    )


def test_a_finalized_session_still_shows_its_masks(pruned):
    masks, sparsity = pruned.masks(), pruned.sparsity()
    pruned.finalize()
    assert torch.equal(pruned.masks()["0"]["weight"], masks["0"]["weight"])
    assert pruned.sparsity() == sparsity
    assert pruned.report().masked == 24


def test_before_compress_there_are_no_masks(attached):
    assert attached.masks() == {}
    assert attached.sparsity() == {}
    assert attached.history == []


def test_compressing_twice_decides_anew(pruned):
    with torch.no_grad():
        raw = pruned.model._modules["0"]._parameters["weight"]
        raw.copy_(torch.arange(32.0).view(8, 4) + 1)
    pruned.compress()
    assert torch.equal(pruned.masks()["0"]["weight"], torch.arange(32).view(8, 4) >= 16)


def test_what_masks_returns_belongs_to_the_caller(pruned):
    pruned.masks()["0"]["weight"].zero_()
    assert pruned.sparsity()["0"]["weight"] == 0.5


def test_a_session_says_what_it_is(pruned):
    assert repr(pruned) == "<tersely.Session attached: 2 targets, step 0>"
    pruned.step()
    pruned.finalize()
    assert repr(pruned) == "<tersely.Session finalized: 2 targets, step 1>"


def test_a_recipe_that_reaches_no_target_is_an_error_that_says_why():
    model = nn.Sequential(nn.Linear(2, 2, bias=False))
    entry = {"op_types": ["Linear"], "target_names": ["bias"]}
    with pytest.raises(tersely.PlanError) as caught:
        tersely.attach(model, {"pruning": {"algorithm": "toy", "config_list": [entry]}})
    assert str(caught.value) == (
        f"the recipe {NO_TARGET_REACHED}, {NOTHING_TO} compress; write entries that select "
        "modules of it, and see print(tersely.plan(model, recipe))\n"
        f"  0.bias is skipped: {NONE_THERE}"
    )
    assert type(model[0]) is nn.Linear


def test_a_pruning_session_adds_no_loss_and_no_parameters(pruned):
    assert pruned.loss().item() == 0.0
    assert pruned.loss().shape == ()
    assert pruned.total_loss(torch.tensor(3.0)).item() == 3.0
    assert list(pruned.parameters()) == []
    assert pruned.qparams() == {}


def test_the_loss_of_a_model_without_tensors_is_on_the_cpu():
    model = nn.Sequential(nn.Identity())
    entry = {"op_names": ["0"], "target_names": ["_output_"]}
    session = tersely.attach(model, {"pruning": {"algorithm": "toy", "config_list": [entry]}})
    assert session.loss().device == torch.device("cpu")


def test_teacher_forward_needs_a_teacher(pruned):
    assert message(pruned.teacher_forward, torch.zeros(1, 4)) == f"{NO_TEACHER}; {GIVE_TEACHER}"


def test_teacher_forward_runs_the_teacher_in_eval_mode_without_a_graph(build):
    teacher = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.9)).train()
    session = tersely.attach(
        build(),
        {"pruning": {"algorithm": "toy", "config_list": CONFIG}},
        teacher=teacher,
    )
    value = torch.ones(2, 4)
    output = session.teacher_forward(value)
    assert not output.requires_grad
    assert torch.equal(output, teacher[0](value))
    assert teacher.training
    assert teacher[1].training
