"""Plugins that are wrong in what only their abilities show: the kit finds each, by a named check."""

import pytest

from tersely.testing import (
    GranularityContract,
    LossContract,
    PrunerContract,
    QuantizerContract,
    ScheduleContract,
    check_granularity,
    check_pruner,
    parametrize,
)

CONTRACTS = {
    "pruner": PrunerContract,
    "quantizer": QuantizerContract,
    "loss": LossContract,
    "schedule": ScheduleContract,
}
MUTANTS = [
    ("pruner", "ShareOfRow", "check_rows_of_zeros"),
    ("pruner", "Reseeding", "check_random_state"),
    ("pruner", "PythonDice", "check_random_state"),
    ("pruner", "MeanOfInputs", "check_observations"),
    ("pruner", "WritesInputs", "check_observations"),
    ("pruner", "Remembers", "check_saved_observations"),
    ("pruner", "KeepsGradient", "check_observations"),
    ("pruner", "WritesGradient", "check_observations"),
    ("pruner", "DividesByGradient", "check_observations"),
    ("pruner", "NeedsGradientsFirst", "check_regrowing"),
    ("pruner", "ScoresFew", "check_scores"),
    ("pruner", "DrawsScores", "check_determinism"),
    ("pruner", "FreesGraph", "check_observations"),
    ("pruner", "DividesByCurvature", "check_observations"),
    ("pruner", "RepeatsInputs", "check_solving"),
    ("pruner", "Shuffles", "check_solving"),
    ("pruner", "Blind", "check_learning"),
    ("pruner", "Doubles", "check_learning"),
    ("pruner", "LongPenalty", "check_learning"),
    ("pruner", "NoPenalty", "check_learning"),
    ("pruner", "Shrinks", "check_learning"),
    ("pruner", "NeverDone", "check_learning"),
    ("pruner", "SolvesInPlace", "check_solving"),
    ("pruner", "SolvesHalf", "check_budgets"),
    ("quantizer", "Draws", "check_random_state"),
    ("quantizer", "LiesAboutIntegers", "check_simulation"),
    ("quantizer", "LiesAboutIntegers", "check_integer_weights"),
    ("quantizer", "FloatIntegers", "check_simulation"),
    ("quantizer", "SimulatesInFloat", "check_simulation"),
    ("quantizer", "SimulatesInFloat", "check_outputs"),
    ("quantizer", "StopsGradients", "check_simulation"),
    ("quantizer", "LearnsNothing", "check_learning"),
    ("quantizer", "NegativeScale", "check_learning"),
    ("quantizer", "MeansOtherwise", "check_learning"),
    ("quantizer", "SolvesNaN", "check_solving"),
    ("quantizer", "WritesWhileSolving", "check_solving"),
    ("quantizer", "SolvesOffGrid", "check_solving"),
    ("quantizer", "Inverted", "check_observer"),
    ("quantizer", "NeverForgets", "check_following"),
    ("quantizer", "ZeroFactors", "check_equalizing"),
    ("quantizer", "CorrectsOne", "check_bias_correction"),
    ("loss", "sum_of_squares", "check_batch_size"),
    ("loss", "root", "check_equal_pair"),
    ("loss", "cosine_by_hand", "check_zeros"),
    ("loss", "overflowing", "check_half_precision"),
    ("loss", "dicing", "check_determinism"),
    ("loss", "remembering", "check_state"),
    ("loss", "refusing", "check_scalar"),
    ("loss", "KeepsGraph", "check_state"),
    ("loss", "Unsaved", "check_state"),
    ("loss", "DeadHead", "check_learning"),
    ("schedule", "overshooting", "check_range"),
    ("schedule", "unfinished", "check_end"),
    ("schedule", "waving", "check_growth"),
]


@pytest.mark.parametrize(
    ("kind", "mutant", "check"), MUTANTS, ids=[f"{mutant}-{check}" for _, mutant, check in MUTANTS]
)
def test_a_mutant_is_found(register, kind, mutant, check):
    name = register(kind, mutant, implementation=f"contract_samples.mutants:{mutant}")

    # Whatever the check runs into is a finding of `contract_results`.
    with pytest.raises(Exception):  # noqa: B017, PT011
        getattr(CONTRACTS[kind](name), check)()


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
    with pytest.raises(ValueError, match="expected_failures names no check: check_zero; there are"):
        parametrize(LossContract("mine"), expected_failures={"check_zero": "?"})
