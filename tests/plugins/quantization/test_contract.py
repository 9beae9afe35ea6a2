"""Every algorithm of the family keeps the contract of quantizers."""

import pytest

from laconic.testing import check_quantizer


@pytest.mark.parametrize("name", ["ptq", "qat"])
def test_a_quantizer_keeps_its_contract(name):
    check_quantizer(name)
