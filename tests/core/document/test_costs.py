"""What an entry more costs, in calls: right or wrong, alike or not; counted, so it cannot flake."""

import json

import pytest
from counting import calls_of

from tersely.document.reading.json_text import read_json
from tersely.document.reading.python_data import read_python
from tersely.document.reading.yaml_text import read_yaml
from tersely.document.validate import find_problems

FEW, MANY = 200, 600

ENTRIES = {
    "right": lambda index: {"op_names": [f"layer{index}"], "sparse_ratio": index / 1000},
    "wrong": lambda index: {"op_names": [f"layer{index}"], "sparse_ratio": 1.5 + index},
    "wrong names": lambda index: {"op_names": [f"layer{index}", index], "sparse_ratio": 0.5},
    "a key misspelt": lambda index: {"op_names": [f"layer{index}"], "sparse_ration": 0.5},
    "keys unknown": lambda index: {"op_names": ["a"], f"key{index}": index},
    "no selector": lambda index: {"op_namez": [f"layer{index}"], "sparse_ratio": 0.5},
}


@pytest.mark.parametrize("read", [read_python, read_yaml], ids=["python", "yaml"])
@pytest.mark.parametrize("entry_of", ENTRIES.values(), ids=ENTRIES)
def test_an_entry_more_costs_few_calls(entry_of, read):
    counts = {}
    for size in (MANY, FEW, MANY):  # the first also fills what is kept for good
        recipe = {"pruning": {"algorithm": "level", "config_list": [*map(entry_of, range(size))]}}
        text = recipe if read is read_python else json.dumps(recipe)
        counts[size] = calls_of(lambda text=text: find_problems(read(text), "recipe"))

    # 170 to 440; asking the schema about each of them takes 400 more, and suggestions 2,000.
    assert (counts[MANY] - counts[FEW]) / (MANY - FEW) < 500


def test_unknown_keys_of_one_mapping_cost_few_calls():
    counts = {}
    for size in (MANY, FEW, MANY):
        entry = {"op_names": ["a"], **{f"key{index}": index for index in range(size)}}
        text = json.dumps([entry])
        counts[size] = calls_of(lambda text=text: find_problems(read_json(text), "pruning"))

    assert (counts[MANY] - counts[FEW]) / (MANY - FEW) < 500
