"""Large models and long config lists plan in time that grows with their size, not its square."""

import time

import pytest
from torch import nn

import laconic
from laconic.document.load import load_recipe
from laconic.planning.resolve import PlanWarning

SMALL, LARGE = 1_000, 4_000


@pytest.fixture
def seconds(recipe_of):
    """The processor time of planning one entry for each of some modules, at its best."""

    def seconds(count, entry_of, **stage):
        model = nn.Sequential(*(nn.ReLU() for _ in range(count)))
        recipe = load_recipe(recipe_of(*map(entry_of, range(count)), **stage))
        best = float("inf")
        for _ in range(2):
            start = time.process_time()
            laconic.plan(model, recipe)
            best = min(best, time.process_time() - start)
        return best

    return seconds


ENTRIES = {
    "by name": lambda number: {"op_names": [str(number)], "lambda": 1},
    "by name and type": lambda number: {"op_names": [str(number)], "op_types": ["ReLU"]},
    "with excludes": lambda number: {
        "op_names": [str(number)],
        "exclude_op_names": ["0.5"],
        "exclude_op_types": ["Sequential"],
    },
    "without a match": lambda number: {"op_names": [f"layer{number}"]},
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::laconic.planning.resolve.PlanWarning")
@pytest.mark.parametrize("entry_of", ENTRIES.values(), ids=ENTRIES)
def test_an_entry_for_each_module_takes_time_in_proportion(seconds, entry_of):
    assert issubclass(PlanWarning, UserWarning)  # the filter above names it
    few = seconds(SMALL, entry_of, method="distillation")
    many = seconds(LARGE, entry_of, method="distillation")

    # Four times the modules and entries: 4 when linear, 16 when quadratic.
    assert many < 6 * max(few, 0.02)


@pytest.mark.slow
def test_a_long_chain_of_followers_takes_time_in_proportion(seconds):
    def entry_of(number):
        follow = {"align": {"module_name": str(number - 1), "target_name": "_output_", "dims": [1]}}
        own = follow if number else {"sparse_ratio": 0.5}
        return {"op_names": [str(number)], "target_settings": {"_output_": own}}

    assert seconds(LARGE, entry_of) < 6 * max(seconds(SMALL, entry_of), 0.02)
