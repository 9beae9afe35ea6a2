"""Averages of models whose masks change while they train: right, or refused (rule B9.4)."""

import copy

import pytest
import torch
from averages import ByName, InOrder, WithBuffers, WithTorch, train
from torch import nn

import tersely

KEYS = {"op_types": ["Linear"], "sparse_ratio": 0.5}
STAGES = {
    "elements": {"algorithm": "level", "config_list": [KEYS]},
    "rows": {"algorithm": "l1_norm", "config_list": [KEYS]},
    "outputs": {
        "algorithm": "l1_norm",
        "config_list": [
            {
                **KEYS,
                "target_names": ["weight", "_output_"],
                "target_settings": {
                    "_output_": {"align": {"target_name": "weight", "dims": [0]}},
                },
            }
        ],
    },
}


def network():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 4))


def attached(kind):
    model = network()
    schedule = {"name": "agp", "every": 2, "times": 3}
    stage = {**STAGES[kind], "schedule": schedule}
    return model, tersely.attach(model, {"pruning": stage})


def seeded(model, session, average=None, *, seed=3):
    torch.manual_seed(seed)
    train(model, session, average, steps=8)


@pytest.mark.parametrize("kind", STAGES)
def test_an_average_of_parameters_has_the_masks_of_the_model_and_is_finished(kind):
    model, session = attached(kind)
    session.compress()
    average = WithTorch(model)
    seeded(model, session, average)
    x = torch.randn(5, 8)
    expected = average.model.eval()(x)
    model.load_state_dict(average.model.state_dict())
    torch.testing.assert_close(model.eval()(x), expected)
    assert session.sparsity()["0"]["weight"] == 0.5


@pytest.mark.parametrize("kind", STAGES)
@pytest.mark.parametrize("way", [WithBuffers, ByName, InOrder])
def test_a_copy_with_averaged_masks_does_not_compute(kind, way):
    model, session = attached(kind)
    session.compress()
    average = way(model)
    average.model.eval()(torch.randn(5, 8))
    seeded(model, session, average)
    with pytest.raises(tersely.SessionFileError, match=r"the mask of 0\.(weight|bias) holds 0\."):
        average.model.eval()(torch.randn(5, 8))


@pytest.mark.parametrize("kind", STAGES)
@pytest.mark.parametrize("way", [WithTorch, WithBuffers, ByName, InOrder])
def test_a_copy_from_before_the_first_masks_is_not_averaged(kind, way):
    model, session = attached(kind)
    average = way(model)
    session.compress()
    with pytest.raises((RuntimeError, ValueError), match=r"shape|size|dimension"):
        seeded(model, session, average)


@pytest.mark.parametrize("way", [WithTorch, WithBuffers, ByName, InOrder])
def test_gradients_rank_without_compress_and_an_early_copy_is_not_averaged(way):
    model = network()
    stage = {
        "algorithm": "taylor",
        "config_list": [KEYS],
        "schedule": {"name": "linear", "begin": 0, "every": 2, "times": 3},
    }
    session = tersely.attach(model, {"pruning": stage})
    average = way(model)
    with pytest.raises((RuntimeError, ValueError), match=r"shape|size|dimension"):
        seeded(model, session, average)


def test_the_soup_of_two_checkpoints_with_other_masks_is_refused():
    states = []
    for seed in (1, 2):
        model, session = attached("elements")
        torch.nn.init.normal_(model[0].weight, generator=torch.Generator().manual_seed(seed))
        session.compress()
        seeded(model, session, seed=seed)
        states.append(copy.deepcopy(model.state_dict()))
    soup = {
        name: ((value.double() + states[1][name].double()) / 2).to(value.dtype)
        for name, value in states[0].items()
    }
    model, session = attached("elements")
    with pytest.raises(tersely.SessionFileError, match=r"the mask of 0\.(weight|bias) holds 0\.5"):
        model.load_state_dict(soup)


def test_the_soup_of_two_checkpoints_with_the_same_masks_is_sparse():
    model, session = attached("elements")
    session.compress()
    seeded(model, session)
    session.freeze()
    states = [copy.deepcopy(model.state_dict())]
    seeded(model, session, seed=4)
    states.append(model.state_dict())
    soup = {
        name: ((value.double() + states[1][name].double()) / 2).to(value.dtype)
        for name, value in states[0].items()
    }
    fresh, again = attached("elements")
    fresh.load_state_dict(soup)
    assert again.sparsity()["0"]["weight"] == 0.5


def test_a_checkpoint_from_before_the_first_masks_leaves_those_of_the_model():
    model, session = attached("elements")
    early = copy.deepcopy(model.state_dict())
    session.compress()
    seeded(model, session)
    model.load_state_dict(early)
    assert session.sparsity()["0"]["weight"] == 0.5
    assert torch.equal(model.state_dict()["0.weight"], network().state_dict()["0.weight"])


@pytest.mark.parametrize("kind", STAGES)
def test_a_copy_made_early_has_the_keys_of_the_model_later(kind):
    model, session = attached(kind)
    early = list(model.state_dict())
    session.compress()
    seeded(model, session)
    assert list(model.state_dict()) == early
