"""Planning calls functions in proportion to modules and entries; counted, so it cannot flake.

tests/benchmarks/test_growth.py measures the time, which loops inside of one call take too.
"""

import pytest
from counting import calls_of
from growing import ENTRIES, follower
from torch import nn

import tersely
from tersely.document.load import load_recipe

SMALL, LARGE = 100, 400


@pytest.fixture
def growth(recipe_of):
    """How many times as many calls `LARGE` modules, one entry each, take as `SMALL` ones."""

    def growth(entry_of, **stage):
        counts = {}
        for size in (SMALL, SMALL, LARGE, LARGE):  # the first of each fills what is kept
            model = nn.Sequential(*(nn.ReLU() for _ in range(size)))
            recipe = load_recipe(recipe_of(*map(entry_of, range(size)), **stage))
            counts[size] = calls_of(lambda model=model, recipe=recipe: tersely.plan(model, recipe))
        return counts[LARGE] / counts[SMALL]

    return growth


@pytest.mark.filterwarnings("ignore::tersely.planning.resolve.PlanWarning")
@pytest.mark.parametrize("entry_of", ENTRIES.values(), ids=ENTRIES)
def test_an_entry_for_each_module_takes_calls_in_proportion(growth, entry_of):
    # Four times the modules and entries: 4 when linear, 16 when quadratic.
    assert growth(entry_of, method="distillation") < 6


def test_a_long_chain_of_followers_takes_calls_in_proportion(growth):
    assert growth(follower) < 6
