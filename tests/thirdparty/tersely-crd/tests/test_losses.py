"""The contracts, and a number by hand for each."""

import math

import pytest
import torch
from tersely_crd.losses import Contrastive, flow

import tersely
from tersely.testing import check_loss


@pytest.mark.parametrize("name", ["crd", "fsp"])
def test_a_loss_keeps_its_contract(name):
    check_loss(name)


def test_an_anchor_is_told_from_noise_by_its_odds():
    loss = Contrastive(samples=4, negatives=2, temperature=1.0)
    anchors, rows = torch.tensor([[1.0, 0.0]]), torch.tensor([[[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]])

    found = loss.told_apart(anchors, rows)

    # Noise has 2 / 4: h is e / (e + 1/2) of the first, 1 / (1 + 1/2) of the others.
    expected = -math.log(math.e / (math.e + 0.5)) - 2 * math.log(1 - 2 / 3)
    assert found.item() == pytest.approx(expected, rel=1e-6)


def test_a_flow_is_the_mean_over_places_of_products_of_channels():
    first, second = torch.tensor([[[[1.0, 2.0]]]]), torch.tensor([[[[3.0, 1.0]], [[0.0, 2.0]]]])

    # (1 * 3 + 2 * 1) / 2 and (1 * 0 + 2 * 2) / 2 against nothing: squares of 2.5 and 2.
    assert flow((first, second), (first, second * 0)).item() == (6.25 + 4) / 2


def test_a_session_trains_both():
    def net():
        return torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3, padding=1), torch.nn.Conv2d(2, 3, 1))

    config = [
        {"op_names": ["0", "1"], "apply_method": "fsp"},
        {
            "op_names": [""],
            "apply_method": {"crd": {"samples": 6, "features": 4}},
        },
    ]
    student, inputs = net(), torch.randn(2, 1, 4, 4)
    session = tersely.distill(student, config, teacher=net())
    for _ in range(2):
        student(inputs)
        session.teacher_forward(inputs)
        session.loss(batch={"indices": torch.tensor([5, 0])}).backward()
        session.step()

    assert len(session.learned()) == 4
