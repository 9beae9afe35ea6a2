"""Attaching calls few functions for each module; counted, so it cannot flake.

tests/benchmarks/test_instrumentation.py measures the time.
"""

import pytest
from counting import calls_of
from torch import nn

import tersely


@pytest.mark.usefixtures("toy_pruners")
def test_a_module_more_costs_few_calls_to_attach():
    """108; 125 while the plan was searched target by target for what only settings show."""
    entry = {"op_types": ["Linear"], "target_names": ["_input_", "weight"], "sparse_ratio": 0.5}
    recipe = {"pruning": {"algorithm": "toy", "config_list": [entry]}}
    counts = {}
    for size in (50, 50, 150):  # the first also fills what is kept for good
        model = nn.Sequential(*(nn.Linear(4, 4, bias=False) for _ in range(size)))
        counts[size] = calls_of(lambda model=model: tersely.attach(model, recipe))

    assert (counts[150] - counts[50]) / 100 < 115
