"""Every check of the contracts, by itself."""

from tersely.testing import GranularityContract, QuantizerContract, parametrize


@parametrize(QuantizerContract("hqq"))
def test_hqq(check):
    check()


@parametrize(QuantizerContract("nf4"))
def test_nf4(check):
    check()


@parametrize(GranularityContract("run", {"length": 2}))
def test_run(check):
    check()
