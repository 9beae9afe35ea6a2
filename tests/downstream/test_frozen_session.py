"""A session that version 0.1.0 saved is loaded, computes what it computed, and goes on."""

import shutil
import warnings
from collections import OrderedDict
from pathlib import Path

import pytest
import torch

import tersely

SESSION = Path(__file__).parent / "session"
INPUTS = torch.tensor([[1.0, 0.5, -0.5, 0.25], [0.0, 2.0, 1.0, -1.0]])


def build(*, scale=1.0):
    model = torch.nn.Sequential(
        OrderedDict(
            first=torch.nn.Linear(4, 4), between=torch.nn.ReLU(), last=torch.nn.Linear(4, 4)
        )
    )
    with torch.no_grad():
        for parameter in model.parameters():
            values = torch.arange(parameter.numel()).reshape(parameter.shape) % 5 - 1
            parameter.copy_(values * scale / 8)
    return model


@pytest.fixture
def session(tmp_path):
    """The saved session on a new model, from a copy, since it may be saved again."""
    folder = shutil.copytree(SESSION, tmp_path / "session")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return tersely.load_session(build(), folder, teacher=build(scale=2.0))


def test_its_masks_are_in_force(session):
    masks = session.masks()

    # two updates of four by the square: a quarter of one half of 16 elements
    assert masks["first"]["weight"].flatten().nonzero(as_tuple=True)[0].tolist() == [
        index for index in range(16) if index not in (1, 6)
    ]
    assert masks["last"]["weight"].all(1).tolist() == [False, False, True, True]
    assert masks["last"]["bias"].tolist() == [False, False, True, True]


def test_its_scales_are_in_force(session):
    qparams = session.qparams()["last"]

    # the largest values of the features are 0.34375, 0.75 and 1.25; a 127th of each is rounded up
    # to a power of two
    assert qparams["_input_"].scale.flatten()[1:].tolist() == [1 / 256, 1 / 128, 1 / 64]
    assert qparams["weight"].scale.flatten()[2:].tolist() == [1 / 256, 1 / 256]
    assert (qparams["weight"].dtype, qparams["weight"].scheme) == ("int8", "symmetric")


def test_it_computes_what_it_computed(session):
    with torch.no_grad():
        outputs = session.model(INPUTS)

    # by hand, of the first sample: hidden 0, 0.34375, 0.625, 0.28125, all on their grids, and so
    # 0.375 * 0.34375 - 0.125 * 0.625 + 0.125 = 0.17578125
    assert outputs[0].tolist() == [0.0, 0.0, 0.17578125, 0.53515625]
    assert outputs[1].tolist() == [0.0, 0.0, 0.03125, 0.375]


def test_its_clock_goes_on(session):
    session.step()

    # three updates of four: 9 / 16 of one half of 16 elements is 4.5
    assert (~session.masks()["first"]["weight"]).sum().item() == 4


def test_its_distillation_goes_on(session):
    session.model(INPUTS)
    session.teacher_forward(INPUTS)

    assert session.loss().item() > 0


def test_it_is_saved_and_loaded_again(session, tmp_path):
    session.save(tmp_path / "again")
    session.detach()

    again = tersely.load_session(build(), tmp_path / "again", teacher=build(scale=2.0))

    with torch.no_grad():
        assert again.model(INPUTS)[0].tolist() == [0.0, 0.0, 0.17578125, 0.53515625]


def test_it_is_finalized(session):
    with pytest.warns(UserWarning, match="stay instrumented after finalize"):
        model = session.finalize()

    assert model.last.weight[0].tolist() == [0.0, 0.0, 0.0, 0.0]
    assert model.last.weight[2].tolist() == [0.25, 0.375, -0.125, 0.0]
