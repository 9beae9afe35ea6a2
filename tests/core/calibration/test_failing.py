"""An algorithm that fails while it observes is named, with the target whose module it saw."""

import pytest
import torch

import tersely
from tersely.contracts import ObservesInputs, ObservesOutputs

RAISED = {"value": ValueError("no such inputs"), "other": KeyError("missing")}


class SeesInputs(ObservesInputs):
    def __init__(self, *, error):
        self.error = RAISED[error]

    def observe_input(self, inputs, target):
        raise self.error

    def importance(self, target):
        return target.tensor.abs()


class SeesOutputs(ObservesOutputs):
    def __init__(self, *, error):
        self.error = RAISED[error]

    def observe_output(self, outputs, target):
        raise self.error

    def importance(self, target):
        return target.tensor.abs()


class Face:
    @tersely.hookimpl
    def tersely_pruners(self):
        options = {
            "type": "object",
            "properties": {"error": {"enum": list(RAISED)}},
            "additionalProperties": False,
        }
        return [
            tersely.PrunerInfo(name=name, implementation=f"{__name__}:{cls}", options=options)
            for name, cls in (("sees_inputs", "SeesInputs"), ("sees_outputs", "SeesOutputs"))
        ]


@pytest.fixture(autouse=True)
def face():
    name = tersely.registry().register(Face(), name="failing")
    yield
    tersely.registry().unregister(name)


def prune(algorithm, error):
    entry = {"op_types": ["Linear"], "target_names": ["weight"], "sparse_ratio": 0.5}
    tersely.prune(
        torch.nn.Sequential(torch.nn.Linear(2, 2)),
        [entry],
        algorithm=algorithm,
        options={"error": error},
        data=[torch.ones(1, 2)],
    )


@pytest.mark.parametrize("algorithm", ["sees_inputs", "sees_outputs"])
def test_what_does_not_suit_an_algorithm_is_told_in_its_words(algorithm):
    with pytest.raises(tersely.CalibrationError, match=r"^0\.weight: no such inputs$"):
        prune(algorithm, "value")


@pytest.mark.parametrize("algorithm", ["sees_inputs", "sees_outputs"])
def test_any_other_failure_names_the_algorithm(algorithm):
    pattern = rf"^{algorithm} failed to observe the module of 0\.weight: KeyError: 'missing'$"
    with pytest.raises(tersely.PluginError, match=pattern):
        prune(algorithm, "other")
