"""Every loss of the family keeps the contract of losses."""

import pytest

from tersely.testing import check_loss


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("activation_regularization", {}),
        ("attention_transfer", {}),
        ("attention_transfer", {"power": 1}),
        ("correlation", {}),
        ("correlation", {"beta": 2, "gamma": 0, "temperature": 4}),
        ("cosine", {}),
        ("decoupled_kl", {}),
        ("decoupled_kl", {"labels": "labels"}),
        ("decoupled_kl", {"alpha": 0, "beta": 2, "temperature": 1}),
        ("hint", {}),
        ("kl", {}),
        ("kl", {"temperature": 4}),
        ("l1", {}),
        ("mse", {}),
        ("probabilistic", {}),
        ("relational", {}),
        ("relational", {"distance_weight": 25, "angle_weight": 0}),
        ("relational", {"distance_weight": 0, "angle_weight": 50}),
        ("similarity_preserving", {}),
        ("smooth_l1", {}),
        ("smooth_l1", {"beta": 0.1}),
    ],
)
def test_a_loss_keeps_its_contract(name, options):
    check_loss(name, options=options)
