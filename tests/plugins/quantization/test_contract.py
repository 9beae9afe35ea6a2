"""Every algorithm of the family keeps the contract of quantizers."""

import pytest

from tersely.testing import check_quantizer

NAMES = ["ptq", "qat", "lsq", "lsq_plus", "dorefa", "bnn"]


@pytest.mark.parametrize("name", NAMES)
def test_a_quantizer_keeps_its_contract(name):
    check_quantizer(name)


@pytest.mark.parametrize("name", ["ptq", "lsq", "lsq_plus", "dorefa"])
def test_a_quantizer_keeps_its_contract_with_another_observer(name):
    check_quantizer(name, options={"observer": "mse", "observer_options": {"bins": 512}})
