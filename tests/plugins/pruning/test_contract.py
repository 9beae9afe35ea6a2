"""Every algorithm of the family keeps the contract of pruners."""

import pytest

from laconic.testing import check_pruner

PRUNERS = [
    "apoz",
    "fpgm",
    "l1_norm",
    "l2_norm",
    "level",
    "mean_activation",
    "movement",
    "random",
    "slim",
    "taylor",
]


@pytest.mark.parametrize("name", PRUNERS)
def test_a_pruner_keeps_its_contract(name):
    check_pruner(name)
