"""Every algorithm of the family keeps the contract of pruners."""

import pytest

import laconic_pruning
from laconic.testing import check_pruner

NAMES = sorted(info.name for info in laconic_pruning.laconic_pruners())


@pytest.mark.parametrize("name", NAMES)
def test_a_pruner_keeps_its_contract(name):
    check_pruner(name)
