"""`session.learned()`: what is learned, by names that stay."""

import pytest
import torch
from torch import nn

import tersely

RECIPE = {
    "pruning": {
        "algorithm": "movement",
        "options": {"warmup_steps": 0, "cooldown_begin_step": 4},
        "config_list": [{"op_names": ["0"], "target_names": ["weight"], "sparse_ratio": 0.5}],
    },
    "quantization": {
        "algorithm": "lsq_plus",
        "config_list": [
            {
                "op_types": ["Linear"],
                "target_names": ["_input_", "weight"],
                "quant_scheme": "affine",
            }
        ],
    },
    "distillation": {"config_list": [{"op_names": ["2"], "link": "0", "projection": "linear"}]},
}
NAMES = [
    "pruning.0.weight.score",
    "quantization.0._input_.scale",
    "quantization.0._input_.zero_point",
    "quantization.0.weight.scale",
    "quantization.0.weight.zero_point",
    "quantization.2._input_.scale",
    "quantization.2._input_.zero_point",
    "quantization.2.weight.scale",
    "quantization.2.weight.zero_point",
    "distillation.2._output_>0.weight",
    "distillation.2._output_>0.bias",
]


def build(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))


@pytest.fixture
def data():
    return torch.randn(5, 6, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def session(data):
    session = tersely.attach(build(), RECIPE, teacher=build(1))
    session.calibrate([data])
    session.compress()
    session.model(data)
    session.teacher_forward(data)
    session.loss()
    return session


def test_names_tell_method_target_and_what_is_learned_in_a_fixed_order(session):
    assert list(session.learned()) == NAMES


def test_the_tensors_are_those_that_are_handed_to_an_optimizer(session):
    learned = list(session.learned().values())
    handed = list(session.parameters())
    assert len(handed) == len(learned)
    assert all(one is other for one, other in zip(handed, learned, strict=True))
    assert all(one.requires_grad and one.is_leaf for one in learned)


def test_looking_does_not_hand_over(session, data):
    before = {name: leaf.detach().clone() for name, leaf in session.learned().items()}
    session.model(data)
    session.teacher_forward(data)
    session.loss().backward()
    session.step()
    scale = "quantization.2.weight.scale"
    assert not torch.equal(session.learned()[scale], before[scale])


def test_a_loaded_session_has_the_same_names_and_values(session, tmp_path):
    before = session.learned()
    session.save(tmp_path / "saved")
    loaded = tersely.load_session(build(), tmp_path / "saved", teacher=build(1)).learned()
    assert list(loaded) == NAMES
    assert all(torch.equal(loaded[name], before[name]) for name in NAMES)


def test_a_tied_weight_is_learned_once_under_its_first_name():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    entry = {"op_types": ["Linear"], "target_names": ["weight"]}
    session = tersely.quantize(model, [entry], algorithm="lsq")
    assert list(session.learned()) == ["quantization.0.weight.scale"]


def test_a_session_that_learns_nothing_shows_nothing():
    entry = {"op_types": ["Linear"], "sparse_ratio": 0.5}
    session = tersely.prune(build(), [entry], algorithm="level")
    assert session.learned() == {}
    session.detach()
    with pytest.raises(tersely.SessionError, match=r"learned\(\) needs an attached session"):
        session.learned()
