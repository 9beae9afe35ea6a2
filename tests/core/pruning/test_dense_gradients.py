"""Pruners that drop and regrow: gradients of masked elements, and elements that come back at zero.

All layers have the weights 1 to 6 in two rows, of which 4, 5 and 6 are kept first. The loss is
``(model(x) * C).sum()`` for one row x, so the gradient of weight (i, j) is C[i] * x[j].
"""

import copy
import math

import pytest
import torch
from torch import nn

import tersely
from tersely.contracts import Learns, ObservesDenseGradients, RegrowsFromZero

X = torch.tensor([[3.0, 1.0, 2.0]])
C = torch.tensor([2.0, 1.0])
DENSE = [[6.0, 2.0, 4.0], [3.0, 1.0, 2.0]]
KEPT = [[False, False, False], [True, True, True]]

SEEN = []


def top(scores, count):
    chosen = torch.zeros(scores.numel(), dtype=torch.bool)
    chosen[scores.flatten().argsort(descending=True, stable=True)[:count]] = True
    return chosen.view_as(scores)


class Regrows(ObservesDenseGradients, RegrowsFromZero):
    """Evci et al., RigL, ICML 2020, and Liu et al., GraNet, NeurIPS 2021.

    Of what is kept a part is dropped by magnitude, until as many elements stay as are due without
    those that are grown; as many as were dropped beyond that are grown by their gradient.
    """

    def __init__(self, *, share=0.0, from_zero=True, only_when_due=True):
        self.share, self.from_zero, self.only_when_due = share, from_zero, only_when_due

    def observe_gradient(self, gradient, target):
        SEEN.append(gradient.tolist())
        return {"gradient": gradient.clone()}

    def importance(self, target):
        magnitude, mask = target.tensor.detach().abs(), target.mask
        if mask is None:
            return magnitude
        due = magnitude.numel() - math.floor(target.due * magnitude.numel())
        grown = math.floor(self.share * due)
        stays = top(torch.where(mask, magnitude, -1), due - grown)
        gradient = target.observed["gradient"].abs()
        return torch.where(stays, torch.inf, gradient).nan_to_num(posinf=1e9)


class LearnsToo(Regrows, Learns):
    def start(self, target):
        return {}

    def masked(self, value, mask, learned):
        return value


def always(progress):
    return 1


def line(progress):
    return progress


OPTIONS = {
    "type": "object",
    "properties": {"share": {}, "from_zero": {}, "only_when_due": {}},
    "additionalProperties": False,
}


class Face:
    @tersely.hookimpl
    def tersely_pruners(self):
        return [
            tersely.PrunerInfo(name=name, implementation=f"{__name__}:{cls}", options=OPTIONS)
            for name, cls in (("regrows", "Regrows"), ("learns_too", "LearnsToo"))
        ]

    @tersely.hookimpl
    def tersely_schedules(self):
        return [
            tersely.ScheduleInfo(name=name, implementation=f"{__name__}:{name}")
            for name in ("always", "line")
        ]


@pytest.fixture(autouse=True)
def _registered():
    tersely.registry().register(Face(), name="regrowing")
    SEEN.clear()
    yield
    tersely.registry().unregister("regrowing")


@pytest.fixture
def layer():
    model = nn.Sequential(nn.Linear(3, 2, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.arange(1.0, 7.0).view(2, 3))
    return model


def attached(model, *, algorithm="regrows", schedule=None, every=1, hold="read", **options):
    entry = {"op_types": ["Linear"], "target_names": ["weight"], "sparse_ratio": 0.5}
    stage = {"algorithm": algorithm, "options": options, "hold": hold, "config_list": [entry]}
    if schedule:
        stage["schedule"] = {"name": schedule, "every": every, "times": 2}
    return tersely.attach(model, {"pruning": stage})


def backward(model, *, forward=None):
    ((forward or model)(X) * C).sum().backward()


def step(model, session, *, optimizer=None):
    optimizer = optimizer or torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer.zero_grad()
    backward(model)
    optimizer.step()
    session.step()


def mask(session):
    return session.masks()["0"]["weight"].tolist()


def raw(model):
    return dict(model.named_parameters())["0.weight"].detach()


def close(found, expected):
    return torch.allclose(found, torch.tensor(expected, dtype=found.dtype))


def test_masked_elements_have_gradients_as_if_nothing_were_masked(layer):
    session = attached(layer)
    session.compress()
    step(layer, session)

    assert mask(session) == KEPT
    assert SEEN == [DENSE]


def test_the_parameter_itself_has_no_gradient_where_it_is_masked(layer):
    session = attached(layer)
    session.compress()
    step(layer, session)

    assert raw(layer).shape == layer[0]._parameters["weight"].grad.shape
    assert layer[0]._parameters["weight"].grad.tolist() == [[0, 0, 0], [3, 1, 2]]


@pytest.mark.parametrize("hold", ["read", "step"])
def test_one_update_drops_the_smallest_weight_and_grows_the_largest_gradient(layer, hold):
    session = attached(layer, schedule="always", hold=hold, share=0.4)
    session.compress()
    assert mask(session) == KEPT

    step(layer, session)

    # 4 is dropped, of magnitude 3.7 after the step; 1 is grown, for its gradient of 6.
    assert mask(session) == [[True, False, False], [False, True, True]]
    assert close(layer[0].weight, [[0, 0, 0], [0, 4.9, 5.8]])


def test_sparsity_may_grow_while_elements_come_back(layer):
    session = attached(layer, schedule="line", share=0.4)
    session.compress()
    assert mask(session) == [[True, True, True], [True, True, True]]

    step(layer, session)
    # One of 6 is due; of 5 kept ones 2 are grown: 4, 5 and 6 stay, then gradients of 6 and 4.
    assert mask(session) == [[True, False, True], [True, True, True]]

    step(layer, session)
    # Three are due; of 3 kept ones 1 is grown. 5 and 6 stay, and the gradient of 6 is largest.
    assert mask(session) == [[True, False, False], [False, True, True]]


def test_what_was_kept_all_the_time_keeps_its_value(layer):
    session = attached(layer, schedule="line", share=0.4)
    session.compress()
    step(layer, session)
    step(layer, session)

    assert raw(layer)[0, 0] == pytest.approx(1 - 0.6 - 0.6)


def test_what_comes_back_is_zero_in_the_dense_model_too(layer):
    session = attached(layer, schedule="always", share=0.4)
    session.compress()
    step(layer, session)
    session.detach()

    assert close(layer[0].weight, [[0, 2, 3], [3.7, 4.9, 5.8]])


def test_what_comes_back_may_have_the_value_that_it_had(layer):
    session = attached(layer, schedule="always", share=0.4, from_zero=False)
    session.compress()
    step(layer, session)

    assert close(layer[0].weight, [[1, 0, 0], [0, 4.9, 5.8]])


def test_a_step_that_fails_leaves_the_values_as_they_were(layer, monkeypatch):
    session = attached(layer, schedule="always", share=0.4)
    session.compress()
    backward(layer)
    monkeypatch.setattr("tersely.pruning.engine.write_masks", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        session.step()

    assert raw(layer).tolist() == [[1, 2, 3], [4, 5, 6]]
    monkeypatch.undo()
    session.step()
    assert mask(session) == [[True, False, False], [False, True, True]]


def test_only_the_step_with_which_masks_are_due_may_count(layer):
    session = attached(layer, schedule="always", every=3)
    session.compress()
    for _ in range(3):
        step(layer, session)

    assert SEEN == [DENSE]


def test_every_step_may_count(layer):
    session = attached(layer, schedule="always", every=3, only_when_due=False)
    session.compress()
    for _ in range(3):
        step(layer, session)

    assert SEEN == [DENSE] * 3


def test_gradients_accumulate_over_backward_passes(layer):
    session = attached(layer)
    session.compress()
    backward(layer)
    backward(layer)
    session.step()

    assert [[[2 * one for one in row] for row in DENSE]] == SEEN


def test_clipping_scales_the_gradients_of_masked_elements_alike(layer):
    session = attached(layer)
    session.compress()
    backward(layer)
    torch.nn.utils.clip_grad_norm_(layer.parameters(), 14**0.5 / 2)  # the norm of 3, 1 and 2
    session.step()

    assert close(torch.tensor(SEEN), [[[one / 2 for one in row] for row in DENSE]])


def test_a_gradient_that_overflowed_where_it_is_masked_is_left_out(layer):
    session = attached(layer)
    session.compress()
    (layer(torch.tensor([[torch.inf, 1.0, 2.0]])) * torch.tensor([1.0, 0.0])).sum().backward()
    session.step()

    assert SEEN == []


def test_a_compiled_model_has_dense_gradients_too(layer):
    session = attached(layer)
    session.compress()
    forward = torch.compile(layer, fullgraph=True, backend="aot_eager")
    backward(layer, forward=forward)
    session.step()

    assert SEEN == [DENSE]


def test_an_attached_model_can_be_exported(layer):
    session = attached(layer)
    session.compress()
    program = torch.export.export(layer, (X,))

    torch.testing.assert_close(program.module()(X), layer(X))


def test_dense_gradients_follow_the_model_to_another_dtype(layer):
    session = attached(layer)
    session.compress()
    layer.double()
    (layer(X.double()) * C).sum().backward()
    session.step()

    assert SEEN == [DENSE]


def test_a_copy_gathers_nothing(layer):
    session = attached(layer)
    session.compress()
    backward(copy.deepcopy(layer))
    backward(layer)
    session.step()

    assert SEEN == [DENSE]


def test_masks_are_not_decided_again_without_gradients(layer):
    session = attached(layer)
    session.compress()

    with pytest.raises(tersely.SessionError, match="ranked by gradients, and regrows has seen"):
        session.compress()


def test_what_is_learned_hides_the_dense_gradients(layer):
    with pytest.raises(tersely.PluginError, match="declares Learns and ObservesDenseGradients"):
        attached(layer, algorithm="learns_too")
