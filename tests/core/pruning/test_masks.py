"""Masks that the user sets: in force, followed, frozen, and checked."""

import pytest
import torch
from messages.blocks import wrong_mask
from messages.planning import NO_SUCH_TARGET
from torch import nn

import tersely

pytestmark = pytest.mark.usefixtures("toy_pruners")


@pytest.fixture
def session():
    model = nn.Sequential(nn.Linear(4, 2))
    return tersely.prune(model, [{"op_names": ["0"], "sparse_ratio": 0.5}], algorithm="toy")


def test_a_mask_of_the_user_is_in_force_and_the_bias_follows(session):
    rows = torch.tensor([[True], [False]])
    session.set_masks({"0": {"weight": rows}})
    assert torch.equal(session.masks()["0"]["weight"], rows.expand(2, 4))
    assert session.masks()["0"]["bias"].tolist() == [True, False]
    assert int(session.model[0].weight[1].count_nonzero()) == 0


def test_masked_weights_grow_back_with_their_values(session):
    dense = dict(session.model.named_parameters())["0.weight"].detach().clone()
    session.set_masks({"0": {"weight": torch.ones(2, 4, dtype=torch.bool)}})
    assert torch.equal(session.model[0].weight, dense)


def test_a_frozen_mask_survives_compressing_again(session):
    rows = torch.tensor([[True], [False]])
    session.set_masks({"0": {"weight": rows}}, freeze=True)
    session.compress()
    assert torch.equal(session.masks()["0"]["weight"], rows.expand(2, 4))


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        ({"0": {"wieght": torch.ones(2, 4)}}, f"{NO_SUCH_TARGET} 0.wieght"),
        ({"0": {"weight": torch.ones(2, 4)}}, "0.weight: a mask is a bool tensor, True = kept"),
        (
            {"0": {"weight": torch.ones(3, 4, dtype=torch.bool)}},
            f"0.weight: {wrong_mask('[3, 4]', '[2, 4]')}",
        ),
        (
            {"0": {"bias": torch.ones(2, dtype=torch.bool)}},
            "0.bias follows another target; set the mask of that one",
        ),
    ],
)
def test_a_mask_that_does_not_fit_is_an_error_and_changes_nothing(session, masks, message):
    before = session.masks()["0"]["weight"]
    with pytest.raises(tersely.SessionError) as caught:
        session.set_masks(masks)
    assert str(caught.value).startswith(message)
    assert torch.equal(session.masks()["0"]["weight"], before)
