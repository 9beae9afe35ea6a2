"""Large models and long config lists plan in time that grows with their size, not its square.

tests/core/planning/test_growth.py counts calls in every run of the suite.
"""

import time

import pytest
from growing import ENTRIES, follower
from torch import nn

import tersely
from tersely.document.load import load_recipe
from tersely.planning.resolve import PlanWarning

pytestmark = pytest.mark.benchmark

SMALL, LARGE = 1_000, 4_000


def recipe_of(entries, method):
    """A recipe of one stage."""
    algorithm = {"algorithm": "level"} if method == "pruning" else {}
    return {method: {"config_list": entries, **algorithm}}


@pytest.fixture
def growth():
    """How many times as long planning takes for `LARGE` modules, one entry each, as for `SMALL`.

    Processor time, the least of interleaved rounds: a busy machine then slows both.
    """

    def growth(entry_of, method):
        best = {SMALL: float("inf"), LARGE: float("inf")}
        prepared = {
            count: (
                nn.Sequential(*(nn.ReLU() for _ in range(count))),
                load_recipe(recipe_of([*map(entry_of, range(count))], method)),
            )
            for count in best
        }
        for _ in range(4):
            for count, (model, recipe) in prepared.items():
                start = time.process_time()
                tersely.plan(model, recipe)
                best[count] = min(best[count], time.process_time() - start)
        return best[LARGE] / max(best[SMALL], 0.02)

    return growth


@pytest.mark.filterwarnings("ignore::tersely.planning.resolve.PlanWarning")
@pytest.mark.parametrize("entry_of", ENTRIES.values(), ids=ENTRIES)
def test_an_entry_for_each_module_takes_time_in_proportion(growth, entry_of):
    assert issubclass(PlanWarning, UserWarning)  # the filter above names it

    # Four times the modules and entries: 4 when linear, 16 when quadratic.
    assert growth(entry_of, "distillation") < 8


def test_a_long_chain_of_followers_takes_time_in_proportion(growth):
    assert growth(follower, "pruning") < 8
