"""Classes of notebook cells, which are made again and again, go when their user lets them go."""

import gc
import weakref
from collections.abc import Callable

import pytest
import torch
from torch import nn

import tersely

WEIGHTS = [{"op_types": ["Block"], "target_names": ["weight"]}]
PRUNING = {"algorithm": "level", "config_list": [{**WEIGHTS[0], "sparse_ratio": 0.5}]}
INPUTS = [{"op_types": ["Block"], "target_names": ["_input_", "weight"]}]


def model_of_a_cell() -> nn.Module:
    class Block(nn.Linear):
        def forward(self, input: torch.Tensor, factor: float = 1.0) -> torch.Tensor:
            return super().forward(input) * factor

    return nn.Sequential(Block(8, 4))


def detached(model: nn.Module) -> None:
    session = tersely.attach(model, {"pruning": PRUNING})
    session.compress()
    session.detach()


def finalized(model: nn.Module) -> None:
    session = tersely.attach(model, {"pruning": PRUNING})
    session.compress()
    session.finalize()


def planned(model: nn.Module) -> None:
    str(tersely.plan(model, {"pruning": PRUNING}))


def with_inputs(model: nn.Module) -> None:
    recipe = {"quantization": {"algorithm": "ptq", "config_list": INPUTS}}
    session = tersely.attach(model, recipe)
    session.calibrate([torch.ones(2, 8)])
    session.compress()
    session.report()
    model(torch.ones(2, 8))


def distilled(model: nn.Module) -> None:
    config_list = [{"op_types": ["Block"]}]
    session = tersely.distill(model, config_list, teacher=model_of_a_cell())
    model(torch.ones(2, 8))
    session.teacher_forward(torch.ones(2, 8))
    session.loss().backward()


def refused(model: nn.Module) -> None:
    with pytest.raises(tersely.PlanError):
        tersely.attach(
            model, {"pruning": {**PRUNING, "config_list": [{**WEIGHTS[0], "target_names": ["no"]}]}}
        )


@pytest.mark.parametrize("use", [detached, finalized, planned, with_inputs, distilled, refused])
def test_nothing_keeps_a_class_that_its_user_let_go(use: Callable[[nn.Module], None]) -> None:
    def run() -> weakref.ref[type]:
        model = model_of_a_cell()
        cls = type(model[0])
        use(model)
        return weakref.ref(cls)

    kept = run()
    gc.collect()

    assert kept() is None


def test_modules_of_a_class_share_their_twin() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 4))
    recipe = {
        "pruning": {
            "algorithm": "level",
            "config_list": [{"op_types": ["Linear"], "sparse_ratio": 0.5}],
        }
    }
    session = tersely.attach(model, recipe)

    assert type(model[0]) is type(model[1])
    session.detach()
