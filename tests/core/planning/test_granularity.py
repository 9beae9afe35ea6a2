"""From granularity values to blocks, and every reason why a value cannot be used."""

import pytest
from messages.planning import INDIVISIBLE, left_over
from torch import nn

import tersely
from tersely.arithmetic.blocks import Blocks

RATIO = {"sparse_ratio": 0.5}


@pytest.fixture
def blocks_of(make):
    def blocks_of(module, *, target="weight", algorithm=None, method="pruning", **keys):
        entry = {"op_names": ["0"], "target_names": [target], **keys}
        (found,) = make(nn.Sequential(module), entry, algorithm=algorithm, method=method)
        return found.blocks

    return blocks_of


@pytest.mark.parametrize("keys", [{}, {"granularity": "default"}, {"granularity": None}])
def test_default_means_what_the_algorithm_declares(blocks_of, keys):
    assert blocks_of(nn.Linear(3, 2), **keys, **RATIO).size == (1, 1)
    assert blocks_of(nn.Linear(3, 2), algorithm="channel", **keys, **RATIO).size == (1, -1)
    assert blocks_of(nn.Linear(3, 2), algorithm="choosy", **keys, **RATIO).size == (1, -1)
    assert blocks_of(nn.Linear(3, 2), method="quantization", **keys).size == (-1, -1)


@pytest.mark.parametrize(
    ("module", "size"),
    [
        (nn.Conv2d(2, 4, 3), (1, -1, -1, -1)),
        (nn.ConvTranspose1d(2, 4, 3), (-1, 1, -1)),
        (nn.Embedding(5, 4), (-1, 1)),
        (nn.BatchNorm1d(4), (1,)),
    ],
    ids=["conv", "transposed", "embedding", "norm"],
)
def test_an_output_channel_lies_where_the_module_type_has_it(blocks_of, module, size):
    assert blocks_of(module, algorithm="channel", **RATIO).size == size


def test_a_scalar_parameter_is_one_block(make):
    module = nn.Module()
    module.gain = nn.Parameter(nn.Linear(1, 1).weight.detach().reshape(()))
    entry = {"op_names": [""], "target_names": ["gain"], **RATIO}

    assert make(module, entry, algorithm="channel").targets[0].blocks == Blocks(())


@pytest.mark.parametrize("value", ["rows", "stand-ins:rows", {"rows": {}}, {"stand-ins:rows": {}}])
def test_a_granularity_is_chosen_by_its_name(blocks_of, value):
    assert blocks_of(nn.Conv1d(2, 4, 3), granularity=value, **RATIO).size == (1, -1, -1)


@pytest.mark.parametrize(
    "value", [[2, 1], {"sizes": {"value": [2, 1]}}, {"stand-ins:sizes": {"value": [2, 1]}}]
)
def test_a_granularity_is_chosen_by_a_value_it_accepts(blocks_of, value):
    assert blocks_of(nn.Conv1d(2, 4, 3), granularity=value, **RATIO).size == (1, 2, 1)


def test_a_supported_granularity_may_be_written_qualified(blocks_of):
    found = blocks_of(nn.Linear(3, 2), algorithm="choosy", granularity="stand-ins:rows", **RATIO)

    assert found.size == (1, -1)


@pytest.mark.parametrize("value", ["rows", "stand-ins:rows"])
def test_an_algorithm_may_name_what_it_supports_qualified(blocks_of, provide, value):
    own = tersely.PrunerInfo(
        name="picky", implementation="picky_plugin:Picky", granularities=("stand-ins:rows",)
    )
    with provide("picky_plugin", own, Picky=type("Picky", (), {"importance": None})):
        found = blocks_of(nn.Linear(3, 2), algorithm="picky", granularity=value, **RATIO)
    assert found.size == (1, -1)


def test_a_granularity_may_fix_how_many_blocks_stay(blocks_of):
    assert blocks_of(nn.Linear(4, 2), granularity="2:4") == Blocks((1, 1), scope=(1, 4), keep=2)


def test_modules_of_one_shape_share_their_blocks(make, linears):
    plan = make(linears(3), {"op_types": ["Linear"], **RATIO})

    assert len({id(target.blocks) for target in plan}) == 1


def test_a_followed_target_has_blocks_only_where_it_states_a_granularity(make, net):
    entry = {"op_names": ["fc1"], **RATIO}
    plain = make(net, entry)
    stated = make(net, {**entry, "target_settings": {"bias": {"granularity": [2]}}})

    assert [target.blocks for target in plain][1] is None
    assert [target.blocks for target in stated][1] == Blocks((2,))


def test_a_granularity_the_algorithm_does_not_support_is_an_error(problem):
    assert problem(nn.Linear(4, 4), algorithm="choosy", granularity="2:4") == (
        'pruning.config_list[0]: 0.weight: choosy does not support granularity "2:4"; it supports '
        "default, rows, sizes"
    )


@pytest.mark.parametrize("target", ["_input_", "_output_"])
def test_a_granularity_of_parameters_on_an_activation_names_per_channel(problem, target):
    assert problem(nn.Linear(4, 4), target=target, granularity="rows") == (
        f'pruning.config_list[0]: 0.{target}: granularity "rows" cannot divide an '
        f"{target.strip('_')}, only: parameter, buffer; write per_channel instead"
    )


def test_a_granularity_of_activations_on_a_parameter_is_an_error(problem, register):
    info = tersely.GranularityInfo(
        name="samples", implementation="nowhere:Nothing", target_kinds=("input", "output")
    )
    register(tersely_granularities=[info])

    assert problem(nn.Linear(4, 4), granularity="samples") == (
        'pruning.config_list[0]: 0.weight: granularity "samples" cannot divide a parameter, only: '
        "input, output"
    )


def test_a_block_that_does_not_divide_names_shape_and_dimension(problem):
    assert problem(nn.Linear(5, 4), granularity=[2, 2]) == (
        "pruning.config_list[0]: 0.weight: granularity [2, 2]: block size [2, 2] "
        f"{INDIVISIBLE} [4, 5]: dimension 1 has 5 elements, {left_over(1, 2)}"
    )


def test_modules_that_one_block_does_not_divide_are_counted_by_shape(problems):
    model = nn.Sequential(nn.Linear(5, 4), nn.Linear(5, 4), nn.Linear(4, 4), nn.Linear(7, 4))
    entry = {"op_types": ["Linear"], "target_names": ["weight"], "granularity": [2, 2], **RATIO}
    found = problems(model, entry)

    assert [problem.split(": ")[1] for problem in found] == ["0.weight and 1 more", "3.weight"]


def test_a_scope_that_does_not_divide_is_an_error(problem):
    assert problem(nn.Linear(6, 4), granularity="2:4") == (
        'pruning.config_list[0]: 0.weight: granularity "2:4": block size [1, 4] '
        f"{INDIVISIBLE} [4, 6]: dimension 1 has 6 elements, {left_over(2, 4)}"
    )


def test_a_value_that_two_granularities_accept_must_be_named(problem, register):
    values = {"type": "array"}
    info = tersely.GranularityInfo(name="tiles", implementation="nowhere:Nothing", values=values)
    register(tersely_granularities=[info])

    assert problem(nn.Linear(4, 4), granularity=[2, 2]) == (
        "pruning.config_list[0]: 0.weight: 2 granularities accept [2, 2]: sizes, tiles; say which "
        'one, as in {"sizes": {"value": [2, 2]}}'
    )


def test_the_default_of_an_algorithm_may_need_a_plugin_that_is_not_installed(
    registry, problem, register
):
    info = tersely.PrunerInfo(
        name="blocky", implementation="nowhere:Nothing", default_granularity=[4, 4]
    )
    registry.unregister("stand-ins")
    register(tersely_pruners=[info])

    assert problem(nn.Linear(4, 4), algorithm="blocky") == (
        "pruning.config_list[0]: 0.weight: no installed granularity accepts [4, 4]; known: default "
        "(tersely-granularity is not installed)"
    )


@pytest.mark.parametrize(
    ("default", "message"),
    [
        (
            "rowz",
            'no installed granularity accepts "rowz"; known: default, neighbours, rows, sizes; did '
            "you mean 'rows'?",
        ),
        ("sizes", 'granularity "sizes" needs its options: value'),
    ],
)
def test_a_default_that_means_nothing_is_an_error(problem, register, default, message):
    info = tersely.PrunerInfo(
        name="odd", implementation="nowhere:Nothing", default_granularity=default
    )
    register(tersely_pruners=[info])

    assert problem(nn.Linear(4, 4), algorithm="odd") == (
        f"pruning.config_list[0]: 0.weight: {message}"
    )


def test_what_was_understood_is_forgotten_when_plugins_change(registry, blocks_of, register):
    assert blocks_of(nn.Linear(4, 4), granularity=[2, 2], **RATIO).size == (2, 2)
    registry.unregister("stand-ins")
    register(
        implementations=(CutRows,),
        tersely_pruners=[tersely.PrunerInfo(name="element", implementation="nowhere:Nothing")],
        tersely_granularities=[
            tersely.GranularityInfo(
                name="others",
                implementation="stand_ins_of_planning_tests:CutRows",
                values={"type": "array"},
            )
        ],
    )

    assert blocks_of(nn.Linear(4, 4), granularity=[2, 2], **RATIO).size == (4, 1)


class CutRows:
    def __init__(self, *, value):
        self.value = value

    def blocks(self, shape, target):
        return tersely.Blocks((4, 1))
