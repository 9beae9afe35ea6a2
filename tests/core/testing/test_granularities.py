"""The contract of granularities passes good ones and finds every way to break it."""

import pytest
from messages.blocks import INDEX_ALONE, NUMBERS_FROM_0, empty_block
from messages.plugins import options_are_open

from tersely.testing import ContractError, GranularityContract, check_granularity

OPTIONS = "`options` is a closed JSON Schema, and its example values select the granularity"
BLOCKS = "Blocks have a size for each dimension; shapes that do not fit raise ValueError"
SAME = "The same shape gives the same blocks"
SCOPE = "A scope consists of whole blocks and keeps no more blocks than it has"

VALUE = {
    "type": "object",
    "properties": {"value": {}},
    "required": ["value"],
    "additionalProperties": False,
}
LETTERS = {"type": "string", "pattern": "^[ab]$"}


@pytest.mark.parametrize("sample", ["Good", "Pairs", "Halved", "Diagonal"])
def test_a_good_granularity_passes(register, sample):
    check_granularity(register("granularity", sample))


def test_a_granularity_with_example_values_passes(register):
    values = {**LETTERS, "examples": ["a", "b"]}

    check_granularity(register("granularity", "Valued", options=VALUE, values=values))


def test_values_may_be_given_to_the_check(register):
    name = register("granularity", "Valued", options=VALUE, values=LETTERS)

    check_granularity(name, values=["a", {name: {"value": 7}}])


def test_values_without_examples_cannot_be_checked(register, failures):
    name = register("granularity", "Valued", options=VALUE, values=LETTERS)

    assert failures(GranularityContract(name)) == {
        OPTIONS: (
            "its schema has no examples, so nothing can be checked; add examples to values (or to "
            "options, if some are required), or pass values to check_granularity"
        )
    }


def test_an_example_that_the_schema_refuses_is_found(register, failures):
    values = {**LETTERS, "examples": ["a", "c"]}
    name = register("granularity", "Valued", options=VALUE, values=values)

    assert failures(GranularityContract(name))[OPTIONS] == (
        'ValueError: no installed granularity accepts "c"; known: default, sample'
    )


def test_an_example_that_selects_another_granularity_is_found(register, failures):
    register("granularity", "Good", name="other")
    name = register("granularity", "Good")

    found = failures(GranularityContract(name, values=["other"]))

    assert found[OPTIONS] == "'other' selects the granularity other"


def test_open_options_are_found(register, failures):
    name = register("granularity", "Good", options={"type": "object"})

    assert failures(GranularityContract(name)) == {OPTIONS: options_are_open()}


TRIED = "[(8,), (8, 16), (24, 8), (8, 4, 4), (8, 4, 4, 4), (128, 128)]"


@pytest.mark.parametrize(
    ("sample", "check", "message"),
    [
        ("Indivisible", BLOCKS, f"'sample' divides none of the shapes that were tried: {TRIED}"),
        ("Refusing", BLOCKS, f"'sample' divides none of the shapes that were tried: {TRIED}"),
        ("Silent", BLOCKS, "'sample' on (8,): raises ValueError without a message"),
        (
            "Failing",
            BLOCKS,
            "'sample' on (8,): expected Blocks or ValueError, got TypeError: tuple indices must be "
            "integers or slices, not str",
        ),
        ("Tupled", BLOCKS, "'sample' on (8,): expected Blocks or ValueError, got tuple"),
        (
            "Flat",
            BLOCKS,
            "'sample' on (8, 16): size [1], expected one length for each dimension, positive or -1",
        ),
        (
            "Zero",
            BLOCKS,
            "'sample' on (8,): size [0], expected one length for each dimension, positive or -1",
        ),
        ("Turned", BLOCKS, "'sample' on (8,): the index has shape [1, 8], expected [8]"),
        (
            "Gapped",
            BLOCKS,
            f"'sample' on (8,): {empty_block(1, 0)}; number blocks without gaps",
        ),
        (
            "Fractional",
            BLOCKS,
            "'sample' on (8,): the index of blocks has dtype torch.float32, expected integers: the "
            "number of each element's block",
        ),
        (
            "Negative",
            BLOCKS,
            f"'sample' on (8,): the index of blocks holds -1, {NUMBERS_FROM_0}",
        ),
        (
            "NumberedInScopes",
            BLOCKS,
            (
                "'sample' on (8,): a scope consists of rectangular blocks, so it cannot be "
                f"combined with numbered blocks; {INDEX_ALONE}"
            ),
        ),
        ("Random", SAME, "'sample' on (8,): a second call returns different block numbers"),
        ("KeepingWithoutScope", SCOPE, "'sample' on (8,): keep is 2, but there is no scope"),
        ("KeepingTooMuch", SCOPE, "'sample' on (8,): keeps 5 of 4 blocks"),
        ("Cutting", SCOPE, "'sample' on (8,): scope [2] cuts blocks of [4]"),
    ],
)
def test_a_broken_granularity_is_found(register, failures, sample, check, message):
    name = register("granularity", sample, target_kinds=("parameter",))

    assert failures(GranularityContract(name))[check] == message


def test_an_index_that_is_no_tensor_is_found(register, failures):
    found = failures(GranularityContract(register("granularity", "Ragged")))

    assert found[BLOCKS].startswith("'sample' on (8,): the index of blocks is not a tensor")


def test_a_granularity_that_changes_its_mind_is_found(register):
    contract = GranularityContract(register("granularity", "Changing"))

    with pytest.raises(
        ContractError,
        match=r"'sample' on \(8,\): the first call returns Blocks\(size=\(.,\).* the second Blocks",
    ):
        contract.check_determinism()
