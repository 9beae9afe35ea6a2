"""Pruners that score the whole model: what they are shown, and that nothing of it stays.

The model is a linear layer of one input and two outputs, with the weights 2 and -1, and one of
two inputs and one output, with the weights 3 and -4.
"""

import copy

import pytest
import torch
from torch import nn

import tersely
from tersely.contracts import ScoresModel

SEEN = []


class Flow(ScoresModel):
    """Tanaka et al., SynFlow, NeurIPS 2020, algorithm 1.

    The score of a weight is |w| times the gradient of the sum of outputs for ones, with absolute
    weights. A part of what is left is masked in every round, and scores anew.
    """

    def __init__(self, *, rounds=1):
        self.rounds = rounds

    def score_model(self, model, targets):
        parameters = [model.parameter(target) for target in targets]
        with torch.no_grad():
            for tensor in (*model.module.parameters(), *model.module.buffers()):
                tensor.abs_()
        scores = self._scores(model, parameters)
        density = 1 - float(targets[0].due)
        for number in range(1, self.rounds):
            everything = torch.cat([one.flatten() for one in scores])
            masked = int(len(everything) * (1 - density ** (number / self.rounds)))
            limit = everything.sort().values[masked]
            with torch.no_grad():
                for parameter, found in zip(parameters, scores, strict=True):
                    parameter.mul_(found >= limit)
            scores = self._scores(model, parameters)
        return scores

    def _scores(self, model, parameters):
        ones = torch.ones_like(model.batches[0][:1])
        found = torch.autograd.grad(model.outputs(ones).sum(), parameters)
        return [one * parameter.detach() for one, parameter in zip(found, parameters, strict=True)]


class Wrecks(ScoresModel):
    """Does what published code does to models, and worse."""

    needs_inputs = False

    def score_model(self, model, targets):
        module = model.module
        SEEN.append([one.training for one in module.modules()])
        SEEN.append([one.grad for one in module.parameters()])
        for parameter in module.parameters():
            parameter.requires_grad_(requires_grad=False)
            parameter.grad = torch.ones_like(parameter)
            parameter.data = torch.zeros_like(parameter)
            parameter.requires_grad_().register_hook(lambda _: 1 / 0)
            parameter.register_post_accumulate_grad_hook(lambda _: 1 / 0)
            parameter.litter = 1
        for one in module.modules():
            one.register_forward_hook(lambda *_: 1 / 0)
            one.register_buffer("litter", torch.zeros(1))
            one.forward = lambda *_: 1 / 0
            one.train()
        module.add_module("more", nn.Linear(1, 1))
        module[0].weight_mask = nn.Parameter(torch.ones(2, 1))
        if SEEN[0] == "fail":
            raise RuntimeError("wrecked")
        return [target.tensor.detach() for target in targets]


class Lies(ScoresModel):
    needs_inputs = False

    def score_model(self, model, targets):
        return [target.tensor.detach() for target in targets[1:]]


OPTIONS = {"type": "object", "properties": {"rounds": {}}, "additionalProperties": False}


class Face:
    @tersely.hookimpl
    def tersely_pruners(self):
        return [
            tersely.PrunerInfo(
                name=cls.lower(),
                implementation=f"{__name__}:{cls}",
                options=OPTIONS,
                default_scope="global",
            )
            for cls in ("Flow", "Wrecks", "Lies")
        ]


@pytest.fixture(autouse=True)
def _registered():
    tersely.registry().register(Face(), name="scoring")
    SEEN.clear()
    yield
    tersely.registry().unregister("scoring")


@pytest.fixture
def model():
    net = nn.Sequential(nn.Linear(1, 2, bias=False), nn.Linear(2, 1, bias=False))
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[2.0], [-1.0]]))
        net[1].weight.copy_(torch.tensor([[3.0, -4.0]]))
    return net


def recipe(algorithm="flow", *, ratio=0.5, hold="read", target="weight", **options):
    entry = {"op_types": ["Linear"], "target_names": [target], "sparse_ratio": ratio}
    stage = {"algorithm": algorithm, "options": options, "hold": hold, "config_list": [entry]}
    return {"pruning": stage}


def masks(session):
    return [one["weight"].tolist() for one in session.masks().values()]


def test_scores_come_from_a_run_of_the_whole_model(model):
    # 2 * 3, 1 * 4, and the same for the second layer; of equal scores the first go first.
    session = tersely.attach(model, recipe(ratio=0.5))
    session.calibrate([torch.randn(5, 1)])
    session.compress()

    assert masks(session) == [[[True], [False]], [[True, False]]]


def test_the_example_inputs_stand_in_for_batches(model):
    session = tersely.attach(model, recipe(), example_inputs=torch.randn(5, 1))
    session.compress()

    assert masks(session) == [[[True], [False]], [[True, False]]]


def test_an_algorithm_may_go_on_in_rounds_on_what_is_left():
    # Three layers of 1 input and 1 output beside each other would score 1, 2 and 3 at once. Here
    # the first of two rounds masks weight 1 of the second layer, and with it the flow through
    # weight 1 of the first one, which scores 0 in the second round.
    net = nn.Sequential(nn.Linear(1, 2, bias=False), nn.Linear(2, 2, bias=False))
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[2.0], [4.0]]))
        net[1].weight.copy_(torch.tensor([[3.0, 1.0], [3.0, 0.5]]))
    session = tersely.attach(net, recipe(ratio=0.5, rounds=2), example_inputs=torch.ones(1, 1))
    session.compress()

    # At once: scores [12, 6] and [[6, 4], [6, 2]], of which 2, 4 and the first 6 would go.
    assert masks(session) == [[[True], [False]], [[True, False], [True, False]]]


def test_masks_in_force_take_effect_in_the_next_run(model):
    session = tersely.attach(model, recipe(ratio=0.25), example_inputs=torch.ones(1, 1))
    session.set_masks({"0": {"weight": torch.tensor([[False], [True]])}})
    session.compress()

    # Nothing flows through the first unit now: 0 * 3 is less than 1 * 4.
    assert masks(session) == [[[False], [True]], [[True, True]]]


@pytest.mark.parametrize("hold", ["read", "step"])
def test_the_model_is_as_it_was(model, hold):
    model(torch.ones(1, 1)).sum().backward()
    session = tersely.attach(model, recipe(hold=hold), example_inputs=torch.ones(1, 1))
    session.compress()
    session.detach()

    assert model[0].weight.tolist() == [[2], [-1]]
    assert model[1].weight.tolist() == [[3, -4]]
    assert model[0].weight.grad.tolist() == [[3], [-4]]
    assert model[1].weight.grad.tolist() == [[2, -1]]


@pytest.mark.parametrize("fails", [False, True])
def test_whatever_is_done_to_the_model_is_undone(model, fails):
    model.train()
    model[1].eval()
    model[0].weight.grad = torch.full((2, 1), 7.0)
    twin = copy.deepcopy(model)
    session = tersely.attach(model, recipe("wrecks"))
    parameters = list(model.parameters())
    pointers = [one.data_ptr() for one in parameters]
    SEEN.extend(["fail"] * fails)
    if fails:
        with pytest.raises(tersely.PluginError, match="wrecks failed on the model: RuntimeError"):
            session.compress()
    else:
        SEEN.append("go on")
        session.compress()
        session.set_masks({"0": {"weight": torch.ones(2, 1, dtype=torch.bool)}})
        session.set_masks({"1": {"weight": torch.ones(1, 2, dtype=torch.bool)}})

    assert SEEN[1] == [False] * 3
    assert SEEN[2] == [None, None]
    assert torch.equal(model(torch.ones(1, 1)), twin(torch.ones(1, 1)))
    assert [one.training for one in model.modules()] == [True, True, False]
    assert [id(one) for one in model.parameters()] == [id(one) for one in parameters]
    assert [one.data_ptr() for one in model.parameters()] == pointers
    assert all(one.requires_grad for one in model.parameters())
    assert model[0]._parameters["weight"].grad.tolist() == [[7], [7]]
    assert not hasattr(parameters[0], "litter")
    model(torch.ones(1, 1)).sum().backward()
    session.detach()
    assert [*vars(model[0])] == [*vars(twin[0])]
    assert list(model.state_dict()) == list(twin.state_dict())


def test_without_inputs_an_error_says_what_to_do(model):
    session = tersely.attach(model, recipe())

    with pytest.raises(tersely.SessionError, match=r"call session\.calibrate\(batches\) before"):
        session.compress()


def test_a_saved_session_has_no_batches_and_goes_on_with_new_ones(model, tmp_path):
    session = tersely.attach(model, recipe(), example_inputs=torch.ones(1, 1))
    session.compress()
    session.save(tmp_path)
    session.detach()
    other = tersely.load_session(model, tmp_path, example_inputs=torch.ones(1, 1))
    other.compress()

    assert masks(other) == [[[True], [False]], [[True, False]]]


def test_scores_that_are_missing_are_an_error_that_names_the_algorithm(model):
    with pytest.raises(tersely.PluginError, match="lies returned scores of 1 targets, expected"):
        tersely.attach(model, recipe("lies")).compress()
