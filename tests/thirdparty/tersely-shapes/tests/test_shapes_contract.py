"""Every check of the contracts, by itself."""

from tersely.testing import GranularityContract, parametrize


@parametrize(GranularityContract("diagonals"))
def test_diagonals(check):
    check()


@parametrize(GranularityContract("packed_heads", {"heads": 2}))
def test_packed_heads(check):
    check()
