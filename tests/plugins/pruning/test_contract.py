"""Every algorithm of the family keeps the contract of pruners."""

import pytest

import tersely_pruning
from tersely.testing import check_pruner

NAMES = sorted(info.name for info in tersely_pruning.tersely_pruners())


@pytest.mark.parametrize("name", NAMES)
def test_a_pruner_keeps_its_contract(name):
    check_pruner(name)
