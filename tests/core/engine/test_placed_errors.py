"""Errors about one target carry its entry and algorithm, however deep the part that raises them."""

import pytest
import torch
from torch import nn

import tersely
from tersely import CalibrationError, PlanError, SessionError
from tersely.contracts import ObservesInputs


class Observing(ObservesInputs):
    def observe_input(self, value, target):
        return {"seen": value.detach().sum()}

    def importance(self, target):
        return target.tensor.abs()


class Endless:
    def importance(self, target):
        return target.tensor.abs() / 0


class Nearest:
    """Takes the range as it is."""


class Face:
    @tersely.hookimpl
    def tersely_pruners(self):
        return [
            tersely.PrunerInfo(name=name, implementation=f"{__name__}:{cls}")
            for name, cls in (("observing", "Observing"), ("endless", "Endless"))
        ]

    @tersely.hookimpl
    def tersely_quantizers(self):
        return [
            tersely.QuantizerInfo(
                name="nearest", implementation=f"{__name__}:Nearest", needs="activations"
            )
        ]


@pytest.fixture(autouse=True)
def _registered():
    tersely.registry().register(Face(), name="placed")
    yield
    tersely.registry().unregister("placed")


class TwoLayers(nn.Module):
    """A model that never calls its second layer."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.left_out = nn.Linear(4, 4)

    def forward(self, value):
        return self.fc(value)


def attach(method, algorithm, **entry):
    entry = {"op_types": ["Linear"], **entry}
    recipe = {method: {"algorithm": algorithm, "config_list": [entry]}}
    return tersely.attach(TwoLayers(), recipe)


def place(error):
    return error.target, error.path, error.algorithm


def test_a_module_that_calibration_did_not_reach():
    session = attach("pruning", "observing", sparse_ratio=0.5)
    with pytest.raises(CalibrationError) as caught:
        session.calibrate([torch.ones(1, 4)])
    assert place(caught.value) == ("left_out.weight", "pruning.config_list[0]", "observing")


def test_an_input_that_calibration_did_not_reach():
    session = attach("quantization", "nearest", target_names=["_input_"])
    with pytest.raises(CalibrationError) as caught:
        session.calibrate([torch.ones(1, 4)])
    assert place(caught.value) == ("left_out._input_", "quantization.config_list[0]", "nearest")


def test_an_input_of_integers():
    session = attach("quantization", "nearest", target_names=["_input_"])
    with pytest.raises(CalibrationError) as caught:
        session.calibrate([torch.ones(1, 4, dtype=torch.long)], forward=lambda m, b: m.fc(b))
    assert place(caught.value) == ("fc._input_", "quantization.config_list[0]", "nearest")


def test_importances_that_are_not_finite():
    session = attach("pruning", "endless", sparse_ratio=0.5)
    with pytest.raises(CalibrationError) as caught:
        session.compress()
    assert place(caught.value) == ("fc.weight", "pruning.config_list[0]", "endless")


def test_a_setting_that_does_not_fit_the_shape():
    with pytest.raises(PlanError) as caught:
        attach("pruning", "observing", sparse_ratio=0.5, internal_metric_block=3)
    assert place(caught.value) == (None, "pruning.config_list[0]", "observing")
    with pytest.raises(PlanError) as caught:
        attach(
            "pruning",
            "observing",
            op_names=["fc"],
            sparse_ratio=0.5,
            internal_metric_block=3,
        )
    assert place(caught.value) == ("fc.weight", "pruning.config_list[0]", "observing")


def test_a_mask_of_another_shape():
    session = attach("pruning", "observing", sparse_ratio=0.5)
    with pytest.raises(SessionError) as caught:
        session.set_masks({"fc": {"weight": torch.ones(5, 5, dtype=torch.bool)}})
    assert place(caught.value) == ("fc.weight", "pruning.config_list[0]", "observing")


def test_a_training_step_without_scales():
    session = attach("quantization", "nearest", target_names=["weight"])
    with pytest.raises(SessionError) as caught:
        session.step()
    assert place(caught.value) == ("fc.weight", "quantization.config_list[0]", "nearest")


def test_a_target_of_two_methods_is_placed_by_the_one_that_works_on_it():
    recipe = {
        method: {"algorithm": algorithm, "config_list": [{"op_names": ["fc"], **more}]}
        for method, algorithm, more in (
            ("pruning", "endless", {"sparse_ratio": 0.5}),
            ("quantization", "nearest", {"target_names": ["weight"]}),
        )
    }
    session = tersely.attach(TwoLayers(), recipe)
    with pytest.raises(CalibrationError) as caught:
        session.compress()
    assert place(caught.value) == ("fc.weight", "pruning.config_list[0]", "endless")
