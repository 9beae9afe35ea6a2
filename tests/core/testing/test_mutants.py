"""Granularities beside other plugins, and one test for each check; see test_mistakes.py."""

import pytest

from tersely.testing import (
    GranularityContract,
    LossContract,
    check_granularity,
    check_pruner,
    parametrize,
)

HEADS = {
    "type": "object",
    "properties": {"heads": {"type": "integer", "minimum": 1}},
    "required": ["heads"],
    "additionalProperties": False,
    "examples": [{"heads": 2}],
}


def test_a_granularity_that_needs_an_option_is_checked_with_its_example(register):
    name = register(
        "granularity",
        "NeedsHeads",
        implementation="contract_samples.mutants:NeedsHeads",
        options=HEADS,
    )

    check_granularity(name)


@pytest.mark.parametrize("sample", ["NeedsHeads", "Failing"])
def test_a_granularity_beside_a_pruner_does_not_fail_its_contract(register, sample):
    options = {"options": HEADS} if sample == "NeedsHeads" else {}
    reference = f"contract_samples.mutants:{sample}"
    register("granularity", sample, name="odd", implementation=reference, **options)
    name = register("pruner", "Magnitude", implementation="contract_samples.mutants:Magnitude")

    check_pruner(name)


def test_a_broken_granularity_is_found_by_its_own_contract(register, failures):
    reference = "contract_samples.mutants:Failing"
    name = register("granularity", "Failing", implementation=reference)

    assert "RuntimeError: broken" in str(failures(GranularityContract(name)))


def test_every_check_becomes_a_test_of_its_own():
    mark = parametrize(
        LossContract("mine"), expected_failures={"mine:check_zeros": "it divides by the norm"}
    ).mark

    names, params = mark.args
    by_id = {param.id: param for param in params}
    assert names == "check"
    assert {"mine-check_scalar", "mine-check_zeros", "mine-check_batch_size"} <= by_id.keys()
    (expected,) = by_id["mine-check_zeros"].marks
    assert (expected.name, expected.kwargs) == (
        "xfail",
        {"reason": "it divides by the norm", "strict": True},
    )
    assert not by_id["mine-check_scalar"].marks


def test_an_expected_failure_of_no_check_is_refused():
    with pytest.raises(
        ValueError, match="expected_failures names unknown checks: check_zero; known:"
    ):
        parametrize(LossContract("mine"), expected_failures={"check_zero": "?"})
