"""Every loss of the family keeps the contract of losses."""

import pytest

from laconic.testing import check_loss


@pytest.mark.parametrize(("name", "options"), [("mse", {}), ("kl", {}), ("kl", {"temperature": 4})])
def test_a_loss_keeps_its_contract(name, options):
    check_loss(name, options=options)
