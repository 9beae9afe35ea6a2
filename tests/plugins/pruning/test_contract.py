"""Every algorithm of the family keeps the contract of pruners."""

import pytest

from laconic.testing import check_pruner


@pytest.mark.parametrize("name", ["fpgm", "l1_norm", "l2_norm", "level"])
def test_a_pruner_keeps_its_contract(name):
    check_pruner(name)
