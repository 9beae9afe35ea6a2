"""The mistakes that authors make most: each is found by the check that its row names.

``test_mutants.py`` has those that only abilities show, and the tests of each kind the others.
"""

import pytest
import torch

from tersely.testing import (
    GranularityContract,
    LossContract,
    PrunerContract,
    QuantizerContract,
    ScheduleContract,
)

CONTRACTS = {
    "pruner": PrunerContract,
    "quantizer": QuantizerContract,
    "loss": LossContract,
    "granularity": GranularityContract,
    "schedule": ScheduleContract,
}
MISTAKES = [
    ("pruner", "CachesByShape", "check_determinism"),
    ("pruner", "CountsCalls", "check_determinism"),
    ("pruner", "MasksItself", "check_weights_untouched"),
    ("pruner", "ScoresInHalf", "check_detach"),
    ("pruner", "Standardized", "check_rows_of_zeros"),
    ("pruner", "Transposed", "check_detach"),
    ("pruner", "SwitchesGradients", "check_weights_untouched"),
    ("pruner", "FreezesWeight", "check_weights_untouched"),
    ("pruner", "LeavesHook", "check_weights_untouched"),
    ("pruner", "LeavesBuffer", "check_detach"),
    ("pruner", "LeavesEvalMode", "check_weights_untouched"),
    ("pruner", "IgnoresNaN", "check_rows_of_zeros"),
    ("pruner", "SumsOverOutputs", "check_detach"),
    ("pruner", "StateInModule", "check_determinism"),
    ("pruner", "LastBatch", "check_determinism"),
    ("pruner", "MaximumOfInputs", "check_observations"),
    ("pruner", "GradientInHalf", "check_detach"),
    ("pruner", "SolvesMore", "check_rows_of_zeros"),
    ("quantizer", "CachesScale", "check_determinism"),
    ("quantizer", "CachesByName", "check_determinism"),
    ("quantizer", "ScalesOfWeightsAlone", "check_determinism"),
    ("quantizer", "HalfScale", "check_scale"),
    ("quantizer", "TinyScale", "check_reach"),
    ("quantizer", "IgnoresZero", "check_determinism"),
    ("quantizer", "FreezesModule", "check_detach"),
    ("quantizer", "QuantizesItself", "check_detach"),
    ("quantizer", "LeavesHookOnModule", "check_detach"),
    ("quantizer", "SwitchesEvalMode", "check_detach"),
    ("quantizer", "RoundsInSimulation", "check_simulation"),
    ("quantizer", "FailsOnInputs", "check_determinism"),
    ("quantizer", "SimulatesWeightsAlone", "check_simulation"),
    ("quantizer", "BranchesOnValues", "check_simulation"),
    ("quantizer", "LearnsInDouble", "check_learning"),
    ("quantizer", "ObserverKeepsState", "check_resume"),
    ("quantizer", "SolvesInHalf", "check_solving"),
    ("quantizer", "SolvesTransposed", "check_solving"),
    ("quantizer", "SolvesElsewhere", "check_detach"),
    ("quantizer", "FallingLevels", "check_reach"),
    ("quantizer", "InfiniteZero", "check_determinism"),
    ("loss", "mean_over_features", "check_batch_size"),
    ("loss", "caching", "check_teacher"),
    ("loss", "counting", "check_determinism"),
    ("loss", "in_place", "check_state"),
    ("loss", "normalizing_teacher", "check_state"),
    ("loss", "teaching_teacher", "check_gradient"),
    ("loss", "in_double", "check_gradient"),
    ("loss", "log_of_probabilities", "check_determinism"),
    ("loss", "correlation", "check_zeros"),
    ("loss", "dropping", "check_determinism"),
    ("loss", "squares_in_half", "check_half_precision"),
    ("loss", "gradients_off", "check_gradient"),
    ("loss", "broadcasting", "check_batch_size"),
    ("loss", "PlainAttribute", "check_state"),
    ("loss", "GrowingBank", "check_state"),
    ("loss", "LateHead", "check_determinism"),
    ("loss", "Extra", "check_determinism"),
    ("loss", "NotSaved", "check_state"),
    ("granularity", "Alternates", "check_determinism"),
    ("granularity", "ByFirstShape", "check_determinism"),
    ("granularity", "Overlaps", "check_blocks"),
    ("granularity", "Floats", "check_determinism"),
    ("schedule", "jumping_back", "check_growth"),
    ("schedule", "remembering_progress", "check_determinism"),
    ("schedule", "above_one", "check_range"),
    ("schedule", "nothing_at_all", "check_determinism"),
]


@pytest.mark.parametrize(
    ("kind", "mistake", "check"), MISTAKES, ids=[f"{name}-{check}" for _, name, check in MISTAKES]
)
def test_a_mistake_is_found(register, kind, mistake, check):
    name = register(kind, mistake, implementation=f"contract_samples.mistakes:{mistake}")

    try:
        # Whatever the check runs into is a finding of `contract_results`.
        with pytest.raises(Exception):  # noqa: B017, PT011
            getattr(CONTRACTS[kind](name), check)()
    finally:
        torch.set_grad_enabled(True)  # which one of them switches off
