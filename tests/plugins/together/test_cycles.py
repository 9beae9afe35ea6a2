"""Random models and recipes from attach to finalize: whole, or refused with everything as before."""

import pytest
from cycles import cycle


@pytest.mark.filterwarnings("ignore::UserWarning")  # odd sizes and ratios are warned of
@pytest.mark.parametrize("block", range(6))
def test_random_cycles_end_whole_or_are_refused(block):
    ends = [cycle(seed)[0] for seed in range(20 * block, 20 * block + 20)]
    assert ends.count("whole") > 10
