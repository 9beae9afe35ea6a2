"""Every check of the contracts, by itself."""

from tersely.testing import QuantizerContract, parametrize


@parametrize(QuantizerContract("pact"))
def test_pact(check):
    check()


@parametrize(QuantizerContract("stochastic"))
def test_stochastic(check):
    check()
