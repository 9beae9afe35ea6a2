"""Granularities that fail, refuse, or return what makes no sense."""

import pytest
from torch import nn

import tersely


class CutThrough:
    def blocks(self, shape, target):
        return tersely.Blocks((1, 4), scope=(1, 2))


class KeptWithoutScope:
    def blocks(self, shape, target):
        return tersely.Blocks((1, 1), keep=1)


class KeptTooMuch:
    def blocks(self, shape, target):
        return tersely.Blocks((1, 1), scope=(1, 2), keep=3)


class OnlyMatrices:
    def blocks(self, shape, target):
        raise ValueError("it divides matrices; leave biases out")


class Clumsy:
    def blocks(self, shape, target):
        return shape[7]


class Listed:
    def blocks(self, shape, target):
        return [1, 1]


class Unmade:
    def __init__(self):
        self.size = {}["size"]


class Hesitant:
    def __init__(self):
        raise ValueError("only on Sundays")


@pytest.fixture
def odd(register):
    classes = (
        OnlyMatrices,
        CutThrough,
        KeptWithoutScope,
        KeptTooMuch,
        Clumsy,
        Listed,
        Unmade,
        Hesitant,
    )
    register(
        implementations=classes,
        tersely_granularities=[
            tersely.GranularityInfo(
                name=one.__name__.lower(),
                implementation=f"stand_ins_of_planning_tests:{one.__name__}",
            )
            for one in classes
        ],
    )


@pytest.mark.usefixtures("odd")
def test_a_scope_that_cuts_blocks_is_an_error(problem):
    assert problem(nn.Linear(4, 4), granularity="cutthrough") == (
        'pruning.config_list[0]: 0.weight: granularity "cutthrough": its scope [1, 2] is not '
        "a multiple of its block [1, 4]"
    )


@pytest.mark.usefixtures("odd")
@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("keptwithoutscope", "it keeps 1 blocks, but has no scope to count them in"),
        ("kepttoomuch", "it keeps 3 of every 2 blocks"),
    ],
)
def test_what_is_kept_must_fit_into_a_scope(problem, value, message):
    assert problem(nn.Linear(4, 4), granularity=value) == (
        f'pruning.config_list[0]: 0.weight: granularity "{value}": {message}'
    )


@pytest.mark.usefixtures("odd")
def test_a_granularity_that_refuses_a_shape_is_a_problem_of_the_plan(problem):
    assert problem(nn.Linear(4, 4), granularity="onlymatrices") == (
        "pruning.config_list[0]: 0.weight: it divides matrices; leave biases out"
    )


@pytest.mark.usefixtures("odd")
def test_a_granularity_that_refuses_its_options_is_a_problem_of_the_plan(problem):
    assert problem(nn.Linear(4, 4), granularity="hesitant") == (
        "pruning.config_list[0]: 0.weight: only on Sundays"
    )


@pytest.mark.usefixtures("odd")
@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            "clumsy",
            'granularity "clumsy" failed on 0.weight of shape [4, 4]: IndexError: tuple index out '
            "of range",
        ),
        (
            "listed",
            'granularity "listed" returned list for 0.weight of shape [4, 4], expected '
            "tersely.Blocks",
        ),
        ("unmade", "granularity \"unmade\" cannot be made: KeyError: 'size'"),
    ],
)
def test_a_granularity_that_fails_is_a_broken_plugin(make, value, message):
    entry = {
        "op_names": ["0"],
        "target_names": ["weight"],
        "granularity": value,
        "sparse_ratio": 0.5,
    }
    with pytest.raises(tersely.BrokenPluginError) as caught:
        make(nn.Sequential(nn.Linear(4, 4)), entry)

    assert str(caught.value) == message
