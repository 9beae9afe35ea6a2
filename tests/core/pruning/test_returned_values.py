"""What a pruner that solves may return, checked when it returns it."""

import pytest
import torch
from torch import nn

import tersely
from tersely.contracts import Solves

ANSWERS = {}


class Answering(Solves):
    """Returns what a test put into ANSWERS."""

    def __init__(self, *, answer):
        self.answer = ANSWERS[answer]

    def solve(self, target, choose):
        return self.answer(target)


class Scoring:
    def __init__(self, *, answer):
        self.answer = ANSWERS[answer]

    def importance(self, target):
        return self.answer(target)


class Chooses(Solves):
    """Keeps what ``choose`` keeps of a target whose ratio is met in each row."""

    def solve(self, target, choose):
        halves = [
            choose(half) for half in target.tensor.abs().split(target.tensor.shape[1] // 2, 1)
        ]
        return tersely.Solution(kept=torch.cat(halves, 1), tensor=target.tensor.detach().clone())


class Rows:
    def blocks(self, shape, target):
        return tersely.Blocks((1, -1))


class TwoOfFour:
    def blocks(self, shape, target):
        return tersely.Blocks((1, 1), (1, 4), 2)


class Face:
    @tersely.hookimpl
    def tersely_granularities(self):
        return [
            tersely.GranularityInfo(name=name, implementation=f"{__name__}:{cls}")
            for name, cls in (("whole_rows", "Rows"), ("two_of_four", "TwoOfFour"))
        ]

    @tersely.hookimpl
    def tersely_pruners(self):
        options = {
            "type": "object",
            "properties": {"answer": {"type": "string"}},
            "additionalProperties": False,
        }
        return [
            tersely.PrunerInfo(
                name=name, implementation=f"{__name__}:{cls}", options=options, abilities=abilities
            )
            for name, cls, abilities in (
                ("answering", "Answering", ("Solves",)),
                ("scoring", "Scoring", ()),
            )
        ] + [
            tersely.PrunerInfo(
                name="chooses", implementation=f"{__name__}:Chooses", default_granularity="row"
            )
        ]


@pytest.fixture(autouse=True)
def _registered():
    tersely.registry().register(Face(), name="answers")
    yield
    tersely.registry().unregister("answers")
    ANSWERS.clear()


def prune(answer, algorithm="answering", **keys):
    ANSWERS["it"] = answer
    torch.manual_seed(0)
    entry = {"op_types": ["Linear"], "target_names": ["weight"], **keys}
    return tersely.prune(
        nn.Sequential(nn.Linear(8, 4, bias=False)),
        [entry],
        algorithm=algorithm,
        options={"answer": "it"},
    )


def first_half(target):
    kept = torch.zeros(target.tensor.shape, dtype=torch.bool)
    kept[:, : kept.shape[1] // 2] = True
    return tersely.Solution(kept=kept, tensor=target.tensor.detach().clone())


WRONG = {
    "nothing": (
        lambda target: None,
        {"sparse_ratio": 0.5},
        "answering returned a NoneType for 0.weight; expected a tersely.Solution",
    ),
    "another shape": (
        lambda target: tersely.Solution(torch.ones(4, dtype=torch.bool), target.tensor),
        {"sparse_ratio": 0.5},
        "answering returned a mask of shape [4] and values of shape [4, 8] for 0.weight; expected "
        "[4, 8]",
    ),
    "a float mask": (
        lambda target: tersely.Solution(torch.ones(4, 8), target.tensor),
        {"sparse_ratio": 0.5},
        "answering returned a mask of dtype torch.float32 and values of dtype torch.float32 for "
        "0.weight; expected torch.bool and floats",
    ),
    "another ratio": (
        first_half,
        {"sparse_ratio": 0.25},
        "answering returned a mask that leaves out 16 of 32 blocks for 0.weight; expected 8, as "
        "the config asks",
    ),
    "a mask across blocks": (
        first_half,
        {"sparse_ratio": 0.5, "granularity": "whole_rows"},
        "answering returned a mask that cuts through blocks for 0.weight; expected each of [1, -1] "
        "elements kept or masked as a whole",
    ),
    "another pattern": (
        first_half,
        {"granularity": "two_of_four"},
        "answering returned a mask that keeps 4 of some 4 neighbours for 0.weight; expected 2 in "
        "each",
    ),
}


@pytest.mark.parametrize(("answer", "keys", "message"), WRONG.values(), ids=list(WRONG))
def test_a_solution_that_was_not_asked_for_is_a_fault_of_the_plugin(answer, keys, message):
    with pytest.raises(tersely.PluginError) as caught:
        prune(answer, **keys)

    assert (str(caught.value), caught.value.plugin) == (message, "answering")


def test_a_solution_of_the_right_ratio_comes_into_force():
    assert prune(first_half, sparse_ratio=0.5).sparsity()["0"]["weight"] == 0.5


def test_a_ratio_that_counts_in_rows_is_met_in_each_over_all_runs_of_columns():
    torch.manual_seed(0)
    layer = nn.Linear(10, 4, bias=False)
    entry = {"op_types": ["Linear"], "target_names": ["weight"], "sparse_ratio": 0.35}

    session = tersely.prune(layer, [entry], algorithm="chooses")

    kept = session.masks()[""]["weight"]
    # floor(0.35 * 10) of each row, of which floor(0.35 * 5) in the first half.
    assert (~kept).sum(1).tolist() == [3, 3, 3, 3]
    assert (~kept[:, :5]).sum(1).tolist() == [1, 1, 1, 1]


def test_an_exception_in_solve_is_told_with_the_plugin():
    def fail(target):
        raise KeyError("inverse")

    with pytest.raises(tersely.PluginError, match=r"^answering failed on 0\.weight: KeyError"):
        prune(fail, sparse_ratio=0.5)


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64])
def test_scores_that_are_no_floats_are_a_fault_of_the_plugin(dtype):
    def score(target):
        return target.tensor.detach().to(dtype)

    with pytest.raises(tersely.PluginError) as caught:
        prune(score, algorithm="scoring", sparse_ratio=0.5)

    assert str(caught.value) == (
        f"scoring returned scores of dtype {dtype} for 0.weight; expected floats"
    )


def test_scores_that_are_not_finite_name_the_plugin():
    def score(target):
        return target.tensor.detach() / 0

    with pytest.raises(
        tersely.CalibrationError, match="32 importances by scoring are not"
    ) as caught:
        prune(score, algorithm="scoring", sparse_ratio=0.5)

    assert caught.value.algorithm == "scoring"
