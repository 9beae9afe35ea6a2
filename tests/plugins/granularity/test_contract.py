"""Every granularity of the family keeps the contract of granularities."""

import pytest

from tersely.testing import check_granularity


@pytest.mark.parametrize(
    "name", ["block", "group", "in_channel", "n_m", "out_channel", "per_channel"]
)
def test_a_granularity_keeps_its_contract(name):
    check_granularity(name)
