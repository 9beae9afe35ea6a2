"""Hints on ratios that are just below one more block (rule B1.9)."""

import pytest
from torch import nn

import tersely


def hints(ratio, *, rows=12, **keys):
    model = nn.Sequential(nn.Linear(8, rows), nn.Linear(rows, rows))
    entry = {"op_types": ["Linear"], "target_names": ["weight"], "sparse_ratio": ratio, **keys}
    recipe = {"pruning": {"algorithm": "channel", "config_list": [entry]}}
    return tersely.plan(model, recipe).hints


def test_a_float_below_a_sixth_names_the_fraction():
    assert hints(1 / 6) == (
        "pruning.config_list[0]: 0.weight and 1 more: sparse_ratio 0.16666666666666666 masks 1 of "
        "12 blocks, just below 2; to mask 2 write '1/6'",
    )


@pytest.mark.parametrize("ratio", ["1/6", 0.1667, 0.5, 0, 1, 0.3333])
def test_other_ratios_are_no_hint(ratio):
    assert hints(ratio) == ()


def test_elements_of_a_large_weight_are_no_hint():
    assert hints(0.3333333, rows=1536, granularity=[1, 1]) == ()


def test_each_run_of_blocks_is_counted_for_itself():
    (hint,) = hints(0.3333333, internal_metric_block=2)
    assert "masks 1 of 6 blocks, just below 2" in hint


def test_a_global_group_counts_elements():
    assert hints(1 / 6, global_group_id="all") == ()
