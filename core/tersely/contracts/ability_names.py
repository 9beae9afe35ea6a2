"""The names of all abilities and what each needs; imports no torch, for descriptors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tersely.contracts.kinds import NEEDS, Needs

_OBSERVING: Mapping[str, Needs] = {
    "ObservesInputs": "activations",
    "ObservesOutputs": "activations",
}

PRUNER_ABILITIES: Mapping[str, Needs] = {
    **_OBSERVING,
    "ObservesGradients": "gradients",
    "ObservesDenseGradients": "gradients",
    "ObservesCurvature": "gradients",
    "Learns": "training",
    "Optimizes": "nothing",
    "Penalizes": "nothing",
    "Grows": "nothing",
    "Solves": "nothing",
    "Sequential": "nothing",
    "MakesNewScores": "nothing",
    "ScoresBlocks": "nothing",
    "RegrowsFromZero": "nothing",
    "ScoresModel": "nothing",
    "OrdersInputs": "nothing",
}
"""The abilities of pruners, and what must happen before they can decide."""

QUANTIZER_ABILITIES: Mapping[str, Needs] = {
    **_OBSERVING,
    "MergesObservations": "nothing",
    "ObservesRange": "nothing",
    "FollowsTraining": "training",
    "LearnsScales": "training",
    "Optimizes": "nothing",
    "OptimizesByName": "nothing",
    "ChangesAfterStep": "training",
    "Simulates": "nothing",
    "SolvesWeights": "nothing",
    "Equalizes": "nothing",
    "CorrectsBias": "nothing",
    "Sequential": "nothing",
    "ClipsGradients": "nothing",
    "ChoosesPerCall": "nothing",
    "Penalizes": "nothing",
    "RoundsAtRandom": "nothing",
    "UsesFloatZeroPoints": "nothing",
    "UsesLevels": "nothing",
}
"""The abilities of quantizers, and what must happen before scales exist."""


def needs_of(abilities: Iterable[str], table: Mapping[str, Needs]) -> Needs:
    """Return the strongest need of some abilities.

    Args:
        abilities: names of abilities.
        table: `PRUNER_ABILITIES` or `QUANTIZER_ABILITIES`.
    """
    known = [table[name] for name in abilities if name in table]
    return max(known, key=NEEDS.index, default="nothing")
