"""The lines that say what a plan does, and what it leaves untouched."""

import pytest
import torch
from messages.planning import NONE_THERE
from torch import nn

import tersely
from tersely.planning.plan import Plan
from tersely.reporting.printing.plan_summary import summarize_plan

pytestmark = pytest.mark.usefixtures("toy_pruners")


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.query = nn.Linear(64, 64)
        self.key = nn.Linear(64, 64)
        self.norm = nn.LayerNorm(64)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(1000, 64)
        self.layers = nn.ModuleList(Block() for _ in range(4))
        self.head = nn.Linear(64, 10, bias=False)


def lines(recipe, model=None, **options):
    model = model or Model()
    with torch.device("meta"):
        plan = tersely.plan(model, recipe)
    return summarize_plan(plan, model, **options).splitlines()


def pruned(**entry):
    return {"pruning": {"algorithm": "toy", "config_list": [{"sparse_ratio": 0.5, **entry}]}}


def test_modules_that_are_treated_alike_are_one_paragraph():
    assert lines(pruned(op_types=["Linear"], exclude_op_names=["head"])) == [
        "pruning: toy",
        "  8 Linear by config_list[0]: 32,768 weights",
        "    weight  sparse_ratio=0.5",
        "    bias    follows weight",
        "    in layers.{0..3}.{query,key}",
        "untouched: 65,152 of 98,432 parameters, 66 %",
        "  64,000 in 1 Embedding: embedding",
        "  640 in 1 Linear: head",
        "  512 in 4 LayerNorm: layers.{0..3}.norm",
        "",
        "16 targets in 8 selected modules",
    ]


def test_parameters_that_a_module_keeps_are_named():
    shown = lines(pruned(op_names=["head", "layers.0.query"], target_names=["weight"]))

    assert "  64 in 1 Linear (bias): layers.0.query" in shown


def test_a_tied_parameter_is_reached_under_both_names():
    model = Model()
    model.head.weight = model.embedding.weight

    assert not [line for line in lines(pruned(op_names=["head"]), model) if "Embedding" in line]


def test_a_tied_parameter_that_nothing_reaches_counts_once():
    model = nn.Sequential(nn.Embedding(10, 4), nn.Linear(4, 4, bias=False), nn.Linear(4, 10))
    model[2].weight = model[0].weight

    shown = lines(pruned(op_names=["1"]), model)

    assert "untouched: 50 of 66 parameters, 76 %" in shown
    assert "  40 in 1 Embedding: 0" in shown
    assert "  10 in 1 Linear (bias): 2" in shown


def test_nothing_untouched_is_said():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU())

    assert "untouched: nothing" in lines(pruned(op_types=["Linear"]), model)


def test_skipped_targets_are_one_line_for_each_reason():
    model = nn.Sequential(*(nn.Linear(4, 4, bias=False) for _ in range(3)))

    assert f"skipped: bias of 3 modules: {NONE_THERE}" in lines(pruned(op_types=["Linear"]), model)


def test_entries_that_decide_differently_are_paragraphs_of_their_own():
    recipe = {
        "pruning": {
            "algorithm": "toy",
            "config_list": [
                {"op_names_re": [r"layers\..*\.query"], "sparse_ratio": 0.5},
                {"op_names_re": [r"layers\..*\.key"], "sparse_ratio": 0.75},
            ],
        }
    }

    assert [line for line in lines(recipe) if " by " in line] == [
        "  4 Linear by config_list[0]: 16,384 weights",
        "  4 Linear by config_list[1]: 16,384 weights",
    ]


def test_lines_are_as_wide_as_asked_where_names_allow_it():
    recipe = pruned(op_types=["Linear"], exclude_op_names=["head"])
    longest = "  8 Linear by config_list[0]: 32,768 weights"

    shown = lines(recipe, width=len(longest))

    assert longest in shown
    assert max(map(len, shown)) == len(longest)


def test_a_plan_read_back_has_the_same_summary():
    model = Model()
    plan = tersely.plan(model, pruned(op_types=["Linear"]))

    assert summarize_plan(Plan.from_dict(plan.to_dict()), model) == summarize_plan(plan, model)


def test_without_a_model_nothing_is_said_of_what_is_untouched():
    plan = tersely.plan(Model(), pruned(op_types=["Linear"]))

    assert "untouched" not in summarize_plan(plan)
