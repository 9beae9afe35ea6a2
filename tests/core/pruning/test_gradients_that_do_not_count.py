"""Gradients that overflowed, were scaled or discarded, for pruners that rank by them.

Both layers have one row of weights 1 to 3. The loss is the sum of their outputs times a factor for
each, so the gradient of a weight is the factor times its input.
"""

import pytest
import torch
from torch import nn

import tersely
from tersely.contracts import ObservesDenseGradients, ObservesGradients

X = torch.tensor([3.0, 1.0, 2.0])
SEEN = {}
VALUES = {}


class Plain(ObservesGradients):
    """Ranks by the gradients of all steps since the last masks."""

    def observe_gradient(self, gradient, target):
        SEEN[target.name] = gradient.tolist()
        VALUES[target.name] = target.tensor
        return {"gradient": gradient.abs()}

    def importance(self, target):
        return target.observed["gradient"]


class Dense(Plain, ObservesDenseGradients):
    """Ranks by the gradient of the step with which masks are due; first by magnitude."""

    only_when_due = True

    def importance(self, target):
        return target.observed.get("gradient", target.tensor.abs())


def line(progress):
    return progress


class Face:
    @tersely.hookimpl
    def tersely_pruners(self):
        return [
            tersely.PrunerInfo(name=name, implementation=f"{__name__}:{name.title()}")
            for name in ("plain", "dense")
        ]

    @tersely.hookimpl
    def tersely_schedules(self):
        return [tersely.ScheduleInfo(name="line", implementation=f"{__name__}:line")]


@pytest.fixture(autouse=True)
def _registered():
    tersely.registry().register(Face(), name="overflowing")
    SEEN.clear()
    VALUES.clear()
    yield
    tersely.registry().unregister("overflowing")


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(3, 1, bias=False), nn.Linear(3, 1, bias=False)
        with torch.no_grad():
            for layer in (self.one, self.two):
                layer.weight.copy_(torch.tensor([[1.0, 2.0, 3.0]]))


def attached(algorithm, *, every=None):
    stage = {
        "algorithm": algorithm,
        "config_list": [{"op_types": ["Linear"], "target_names": ["weight"], "sparse_ratio": 0.67}],
    }
    if every:
        stage["schedule"] = {"name": "line", "every": every, "times": 1}
    return tersely.attach(Two(), {"pruning": stage})


def backward(model, *factors, x=X):
    layers = (model.one, model.two)
    loss = [factor * layer(x).sum() for factor, layer in zip(factors, layers, strict=True)]
    sum(loss).backward()


def step(session, *factors, x=X):
    session.model.zero_grad()
    backward(session.model, *factors, x=x)
    session.step()


def kept(session):
    return session.masks()["one"]["weight"].flatten().tolist()


@pytest.mark.parametrize("algorithm", ["plain", "dense"])
def test_masks_that_are_due_with_gradients_that_overflowed_wait_for_the_next_step(algorithm):
    session = attached(algorithm, every=1)
    session.compress()

    step(session, torch.inf, 1.0)
    assert kept(session) == [True, True, True]
    step(session, 1.0, 1.0)

    assert kept(session) == [True, False, False]


def test_what_waits_goes_on_waiting_in_a_saved_session(tmp_path):
    session = attached("dense", every=2)
    session.compress()
    step(session, 1.0, 1.0)
    step(session, torch.inf, 1.0)
    session.save(tmp_path)
    session.detach()

    loaded = tersely.load_session(Two(), tmp_path)
    step(loaded, 1.0, 1.0)

    assert kept(loaded) == [True, False, False]


def test_what_was_seen_before_ranks_where_the_step_itself_overflowed():
    session = attached("plain", every=2)
    session.compress()
    step(session, 1.0, 1.0)

    step(session, torch.inf, 1.0)

    assert kept(session) == [True, False, False]


def test_masked_elements_alone_may_overflow():
    session = attached("dense", every=1)
    session.set_masks({"one": {"weight": torch.tensor([[False, True, True]])}})

    step(session, 1.0, 1.0, x=torch.tensor([torch.inf, 1.0, 2.0]))
    assert SEEN == {}
    step(session, 1.0, 1.0)

    assert kept(session) == [True, False, False]


def test_a_layer_whose_kept_elements_have_no_gradient_is_scaled_as_the_others_are():
    session = attached("dense")
    half = torch.tensor([[False, True, True]])
    session.set_masks({"one": {"weight": half}, "two": {"weight": half}})

    for layer, x in ((session.model.one, X), (session.model.two, X * torch.tensor([1, 0, 0]))):
        (8 * layer(x)).sum().backward()
    for parameter in session.model.parameters():
        parameter.grad /= 8
    session.step()

    assert SEEN == {"one.weight": [[3.0, 1.0, 2.0]], "two.weight": [[3.0, 0.0, 0.0]]}


def test_the_norm_of_half_precision_gradients_does_not_overflow():
    session = attached("dense")
    session.set_masks({"one": {"weight": torch.tensor([[False, True, True]])}})
    session.model.half()

    backward(session.model, 30000.0, 1.0, x=torch.tensor([1.0, 1.0, 2.0]).half())
    for parameter in session.model.parameters():
        parameter.grad /= 16
    session.step()

    # The root of 30000^2 + 60000^2 is 67082, more than half precision holds.
    assert SEEN["one.weight"] == [[1875.0, 1875.0, 3750.0]]


@pytest.mark.parametrize("set_to_none", [True, False])
@pytest.mark.parametrize("is_compiled", [False, True])
def test_a_batch_whose_gradients_were_zeroed_does_not_count(set_to_none, is_compiled):
    session = attached("dense")
    session.set_masks({"one": {"weight": torch.tensor([[False, True, True]])}})
    layer = session.model.one
    forward = torch.compile(layer, backend="aot_eager") if is_compiled else layer

    (5 * forward(X)).sum().backward()
    session.model.zero_grad(set_to_none=set_to_none)
    forward(X).sum().backward()
    backward(session.model, 0.0, 1.0)
    session.step()

    assert SEEN["one.weight"] == [[3.0, 1.0, 2.0]]


def test_batches_without_gradients_of_what_is_kept_count():
    session = attached("dense")
    session.set_masks({"one": {"weight": torch.tensor([[False, True, True]])}})

    for _ in range(2):
        session.model.one(torch.tensor([3.0, 0.0, 0.0])).sum().backward()
    backward(session.model, 0.0, 1.0)
    session.step()

    assert SEEN["one.weight"] == [[6.0, 0.0, 0.0]]


def test_a_parameter_that_was_swapped_is_an_error_since_its_gradients_are_not_seen():
    session = attached("plain")
    parameter = dict(session.model.named_parameters())["two.weight"]
    step(session, 1.0, 1.0)
    session.model.zero_grad()
    torch.utils.swap_tensors(parameter, nn.Parameter(torch.ones(1, 3)))
    with pytest.raises(tersely.SessionError, match=r"two\.weight is another parameter .*swap_ten"):
        step(session, 1.0, 1.0)


def test_values_before_a_step_are_those_of_the_dtype_that_the_model_has_then():
    session = attached("plain")
    step(session, 1.0, 1.0)
    session.model.double()
    with torch.no_grad():
        session.model.one.weight += 1e-12  # float32 does not hold it
    step(session, 1.0, 1.0, x=X.double())
    assert VALUES["one.weight"].tolist() == session.model.one.weight.tolist()
