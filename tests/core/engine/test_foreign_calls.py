"""Whatever a method of an algorithm raises names the algorithm, the method and the target."""

import pytest
import torch

import tersely
from tersely.contracts import (
    ChangesAfterStep,
    CorrectsBias,
    Equalizes,
    Learns,
    LearnsScales,
    ObservesGradients,
    ObservesInputs,
    Penalizes,
    SolvesWeights,
)

FAILING = {"method": "", "error": None}


def fail(method):
    if FAILING["method"] == method:
        raise FAILING["error"]


class Pruner(Learns, Penalizes, ObservesGradients):
    def start(self, target):
        fail("start")
        return {"gate": torch.ones(())}

    def masked(self, value, mask, learned):
        return value * learned["gate"]

    def penalty(self, learned, steps):
        fail("penalty")
        return learned[0]["gate"]

    def observe_gradient(self, gradient, target):
        fail("observe_gradient")
        return {"gradient": gradient.abs()}

    def importance(self, target):
        return target.tensor.abs()


class Scales(LearnsScales, ChangesAfterStep, Penalizes):
    def start(self, qparams, target):
        fail("start")
        return {"scale": qparams.scale.clone()}

    def meaning(self, qparams, learned):
        fail("meaning")
        return qparams

    def learned_values(self, value, qparams, learned, target):
        return tersely.fake_quantize(value, qparams)

    def after_step(self, tensor, target):
        fail("after_step")

    def penalty(self, learned, steps):
        fail("penalty")
        return learned[0]["scale"].sum()


class Solver(ObservesInputs, Equalizes, SolvesWeights, CorrectsBias):
    def observe_input(self, inputs, target):
        return {"sum": inputs.sum(0)}

    def input_scales(self, targets):
        fail("input_scales")
        return torch.ones(2)

    def solve_scaled(self, target, input_scale):
        return None

    def solve(self, target):
        return None

    def bias_correction(self, target, quantized):
        fail("bias_correction")
        return torch.zeros(2)


class Face:
    @tersely.hookimpl
    def tersely_pruners(self):
        return [tersely.PrunerInfo(name="gated", implementation=f"{__name__}:Pruner")]

    @tersely.hookimpl
    def tersely_quantizers(self):
        return [
            tersely.QuantizerInfo(name=name, implementation=f"{__name__}:{cls}")
            for name, cls in (("scales", "Scales"), ("solver", "Solver"))
        ]


@pytest.fixture(autouse=True)
def face():
    name = tersely.registry().register(Face(), name="failing")
    yield
    tersely.registry().unregister(name)
    FAILING.update(method="", error=None)


def run(kind, algorithm):
    entry = {"op_types": ["Linear"], "target_names": ["weight"]}
    if kind == "pruning":
        entry["sparse_ratio"] = 0.5
    model = torch.nn.Sequential(torch.nn.Linear(2, 2))
    session = tersely.attach(model, {kind: {"algorithm": algorithm, "config_list": [entry]}})
    session.calibrate([torch.ones(1, 2)])
    if kind == "quantization":
        session.compress()
    session.total_loss(model(torch.ones(1, 2)).sum()).backward()
    session.step()


CALLS = [
    ("pruning", "gated", "start", " of 0.weight"),
    ("pruning", "gated", "penalty", ""),
    ("pruning", "gated", "observe_gradient", " of 0.weight"),
    ("quantization", "scales", "start", " of 0.weight"),
    ("quantization", "scales", "meaning", " of 0.weight"),
    ("quantization", "scales", "after_step", " of 0.weight"),
    ("quantization", "scales", "penalty", ""),
    ("quantization", "solver", "input_scales", " of 0.weight"),
    ("quantization", "solver", "bias_correction", " of 0.weight"),
]


@pytest.mark.parametrize(("kind", "algorithm", "method", "where"), CALLS)
def test_a_failure_names_the_algorithm_and_its_method(kind, algorithm, method, where):
    FAILING.update(method=method, error=KeyError("missing"))

    with pytest.raises(tersely.PluginError) as raised:
        run(kind, algorithm)

    assert str(raised.value) == f"{algorithm} failed in {method}(){where}: KeyError: 'missing'"
    assert isinstance(raised.value.__cause__, KeyError)


@pytest.mark.parametrize(("kind", "algorithm", "method", "where"), [one for one in CALLS if one[3]])
def test_a_target_that_does_not_suit_is_told_in_the_words_of_the_algorithm(
    kind, algorithm, method, where
):
    FAILING.update(method=method, error=ValueError("no such weight"))

    with pytest.raises(tersely.PlanError) as raised:
        run(kind, algorithm)

    assert str(raised.value) == f"{kind}.config_list[0]: 0.weight: no such weight"
