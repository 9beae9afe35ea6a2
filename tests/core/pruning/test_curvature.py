"""Pruners that need second derivatives: what ``session.total_loss`` shows them.

The model is one row of weights w, and the loss half of the sum of (w x)^2 over the rows x of X. Its
Hessian is X^T X = [[2, 1], [1, 5]].
"""

import re

import pytest
import torch
from messages.sessions import LOSS_AND_STEP_FIRST
from torch import nn

import tersely
from tersely.contracts import ObservesCurvature

X = torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]])
SIGNS = [torch.tensor([[1.0, 1.0]]), torch.tensor([[1.0, -1.0]])]

SEEN = []


class Damage(ObservesCurvature):
    """LeCun et al., Optimal Brain Damage, NeurIPS 1989, equation 5: h w^2 / 2.

    The diagonal is Hutchinson's estimate, the mean of v * H v, here over all signs there are.
    """

    def __init__(self, *, only_when_due=False):
        self.only_when_due = only_when_due

    def observe_curvature(self, curvature, targets):
        diagonals = [sign * curvature.times([sign])[0] for sign in SIGNS]
        SEEN.append((curvature.step, [target.name for target in targets]))
        SEEN.append(curvature.gradients[0].tolist())
        return [{"diagonal": sum(diagonals) / 2, "steps": torch.ones(())}]

    def importance(self, target):
        diagonal = target.observed["diagonal"] / target.observed["steps"]
        SEEN.append(diagonal.tolist())
        return diagonal * target.tensor.square() / 2


class Fails(ObservesCurvature):
    def observe_curvature(self, curvature, targets):
        raise RuntimeError("no second derivative")

    def importance(self, target):
        return target.tensor.abs()


class Forgets(Fails):
    def observe_curvature(self, curvature, targets):
        return []


OPTIONS = {"type": "object", "properties": {"only_when_due": {}}, "additionalProperties": False}


def line(progress):
    return progress


class Face:
    @tersely.hookimpl
    def tersely_pruners(self):
        return [
            tersely.PrunerInfo(
                name=cls.lower(), implementation=f"{__name__}:{cls}", options=OPTIONS
            )
            for cls in ("Damage", "Fails", "Forgets")
        ]

    @tersely.hookimpl
    def tersely_schedules(self):
        return [tersely.ScheduleInfo(name="line", implementation=f"{__name__}:line")]


@pytest.fixture(autouse=True)
def _registered():
    tersely.registry().register(Face(), name="curved")
    SEEN.clear()
    yield
    tersely.registry().unregister("curved")


@pytest.fixture
def model():
    net = nn.Sequential(nn.Linear(2, 1, bias=False))
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[2.0, 1.5]]))
    return net


def attached(model, algorithm="damage", *, schedule=None, hold="read", **options):
    entry = {"op_types": ["Linear"], "target_names": ["weight"], "sparse_ratio": 0.5}
    stage = {"algorithm": algorithm, "options": options, "hold": hold, "config_list": [entry]}
    if schedule:
        stage["schedule"] = schedule
    return tersely.attach(model, {"pruning": stage})


def step(model, session):
    loss = session.total_loss(model(X).square().sum() / 2)
    model.zero_grad()
    loss.backward()
    session.step()


def test_the_diagonal_of_the_hessian_is_found(model):
    session = attached(model)
    step(model, session)
    session.compress()

    assert SEEN[-1] == [[2, 5]]


def test_what_the_loss_would_miss_least_is_masked(model):
    # 2 * 4 / 2 is 4 and 5 * 2.25 / 2 is 5.6, though 2 is the larger weight.
    session = attached(model)
    step(model, session)
    session.compress()

    assert session.masks()["0"]["weight"].tolist() == [[False, True]]


def test_the_gradients_are_those_of_the_loss(model):
    # H w is [2 * 2 + 1.5, 2 + 5 * 1.5].
    session = attached(model)
    step(model, session)

    assert SEEN == [(0, ["0.weight"]), [[5.5, 9.5]]]
    assert dict(model.named_parameters())["0.weight"].grad.tolist() == [[5.5, 9.5]]


def test_what_is_seen_adds_up_over_losses_and_is_dropped_with_new_masks(model):
    session = attached(model)
    step(model, session)
    step(model, session)
    session.compress()
    assert SEEN[-1] == [[2, 5]]

    with pytest.raises(tersely.SessionError, match=re.escape(LOSS_AND_STEP_FIRST)):
        session.compress()


def test_masked_elements_have_no_curvature(model):
    session = attached(model)
    session.set_masks({"0": {"weight": torch.tensor([[True, False]])}})
    step(model, session)
    session.compress()

    assert SEEN[-1] == [[2, 0]]


def test_only_the_step_with_which_masks_are_due_may_count(model):
    schedule = {"name": "line", "every": 2, "times": 1}
    session = attached(model, schedule=schedule, only_when_due=True)
    session.compress()
    for _ in range(3):
        step(model, session)

    assert [one for one in SEEN if isinstance(one, tuple)] == [(1, ["0.weight"])]
    assert session.masks()["0"]["weight"].tolist() == [[False, True]]


def test_a_loss_without_a_graph_is_not_looked_at(model):
    session = attached(model)
    with torch.no_grad():
        session.total_loss(model(X).square().sum())

    assert SEEN == []


def test_a_linear_loss_has_no_curvature(model):
    session = attached(model)
    loss = session.total_loss(model(X).sum())
    loss.backward()
    session.compress()

    assert SEEN[-1] == [[0, 0]]


def test_a_loss_that_overflowed_is_left_out(model):
    session = attached(model)
    session.total_loss(model(X * torch.inf).square().sum())

    assert SEEN == []


def test_what_was_seen_is_saved(model, tmp_path):
    session = attached(model)
    step(model, session)
    session.save(tmp_path)
    session.detach()
    tersely.load_session(model, tmp_path).compress()

    assert SEEN[-1] == [[2, 5]]


@pytest.mark.parametrize(
    ("algorithm", "words"),
    [
        ("fails", "fails failed on the curvature of the loss: RuntimeError: no second derivative"),
        ("forgets", "forgets returned what it observed of 0 targets, expected that of 1"),
    ],
)
def test_an_algorithm_that_fails_is_named(model, algorithm, words):
    session = attached(model, algorithm)

    with pytest.raises(tersely.PluginError, match=words):
        session.total_loss(model(X).square().sum())


def test_a_frozen_parameter_has_no_curvature(model):
    model.requires_grad_(requires_grad=False)

    with pytest.raises(tersely.AttachError, match=r"0\.weight is frozen"):
        attached(model)


def test_masks_in_place_hide_the_curvature(model):
    with pytest.raises(tersely.PlanError, match="needs the gradients that pass through masks"):
        attached(model, hold="step")


def test_a_parameter_that_is_frozen_later_is_not_looked_at(model):
    model.append(nn.Linear(1, 1, bias=False))
    session = attached(model)
    model[1].requires_grad_(requires_grad=False)
    model[0].requires_grad_(requires_grad=False)

    session.total_loss(model(X.requires_grad_()).square().sum())
    X.requires_grad_(requires_grad=False)

    assert SEEN == []


def test_a_loss_whose_graph_is_gone_is_an_error_that_says_when_to_call(model):
    session = attached(model)
    loss = model(X).square().sum()
    loss.backward()

    with pytest.raises(tersely.SessionError, match=r"call it before loss\.backward\(\)"):
        session.total_loss(loss)
