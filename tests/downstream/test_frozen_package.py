"""A package that was written for plugin API 1.1 decides as it did then."""

import math

import numpy
import pytest
import torch

import tersely
from tersely.document.load import load_recipe


def linear(rows: list[list[float]]) -> torch.nn.Module:
    weight = torch.tensor(rows)
    model = torch.nn.Sequential(torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False))
    with torch.no_grad():
        model[0].weight.copy_(weight)
    return model


def test_its_face_is_accepted():
    (record,) = [
        one for one in tersely.registry().plugins() if one.distribution == "tersely-frozen"
    ]

    assert (record.state, record.version) == ("ok", "1.0")
    assert len(record.provides) == 7


def test_its_pruner_ranks_elements():
    model = linear([[1.0, -3.0], [1.0, 1.0]])
    config = [{"op_types": ["Linear"], "sparse_ratio": 0.5}]

    session = tersely.prune(model, config, algorithm="frozen_importance", options={"power": 2.0})

    # rows: 1/4 3/4 | 1/2 1/2, columns: 1/2 3/4 | 1/2 1/4, together: 3/4 6/4 | 1 3/4
    assert session.masks()["0"]["weight"].tolist() == [[False, True], [True, False]]


def test_its_pruner_observes_inputs():
    model = linear([[1.0, 1.0], [2.0, 2.0]])
    config = [{"op_types": ["Linear"], "sparse_ratio": 0.5}]
    data = [torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 1.0]])]

    session = tersely.prune(model, config, algorithm="frozen_inputs", data=data)

    # squares add up to 1 and 5: scores 1 5 | 2 10
    assert session.masks()["0"]["weight"].tolist() == [[False, True], [False, True]]


def test_its_granularity_pairs_rows():
    model = linear([[1.0, 1.0], [1.0, 1.0], [5.0, 5.0], [0.0, 0.0]])
    config = [{"op_types": ["Linear"], "sparse_ratio": 0.5, "granularity": "frozen_row_pair"}]

    session = tersely.prune(model, config, algorithm="frozen_importance")

    # each element of rows 0 and 1: 1/2 + 1/7, of row 2: 1/2 + 5/7, of row 3: 0;
    # so the first pair has 4 * 9/14 = 18/7, the second 2 * 17/14 = 17/7
    assert session.masks()["0"]["weight"].all(1).tolist() == [True, True, False, False]


def test_its_quantizer_chooses_powers_of_two_and_its_exporter_writes_the_integers(tmp_path):
    model = linear([[1.0, -3.0], [0.5, 1.5]])
    config = [{"op_types": ["Linear"], "target_names": ["weight"], "quant_dtype": "int8"}]

    session = tersely.quantize(model, config, algorithm="frozen_power_of_two")
    exported = session.export("frozen_arrays", tmp_path / "weights.npz")

    # 3 / 127 and 1.5 / 127, rounded up to powers of two
    with numpy.load(exported.paths[0]) as arrays:
        assert arrays["0.weight.scale"].flatten().tolist() == [1 / 32, 1 / 64]
        assert arrays["0.weight"].tolist() == [[32, -96], [32, 96]]


def test_its_loss_and_its_schedule_are_functions_of_a_recipe():
    recipe = load_recipe(
        {
            "pruning": {
                "algorithm": "frozen_importance",
                "schedule": {"name": "frozen_square", "every": 1, "times": 2},
                "config_list": [{"op_types": ["Linear"], "sparse_ratio": 0.5}],
            },
            "distillation": {
                "config_list": [{"op_names": ["0"], "apply_method": "frozen_log_cosh"}],
            },
        }
    )
    model, teacher = linear([[1.0] * 4] * 2), linear([[2.0] * 4] * 2)
    session = tersely.attach(model, recipe, teacher=teacher)
    session.compress()

    inputs = torch.tensor([[1.0, 0.0, 0.0, 0.0]])
    model(inputs)
    session.teacher_forward(inputs)

    # the outputs are 1 and 2
    assert session.loss().item() == pytest.approx(math.log(math.cosh(1.0)), rel=1e-5)
    session.step()
    # a quarter of one half of 8 elements
    assert (~session.masks()["0"]["weight"]).sum().item() == 1


def test_its_module_type_has_a_target_of_its_own():
    from tersely_frozen.algorithms import Scaled

    config = [{"op_types": ["Scaled"], "sparse_ratio": 0.5}]

    model = torch.nn.Sequential(Scaled())
    plan = tersely.plan(
        model, {"pruning": {"algorithm": "frozen_importance", "config_list": config}}
    )

    assert [one.name for one in plan] == ["0.scales"]
