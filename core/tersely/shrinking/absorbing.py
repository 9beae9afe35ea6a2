"""Constants that biases take over for removed positions, and the modes in which that is exact."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from tersely.shrinking.cutting.masked_weights import MaskedWeights
from tersely.shrinking.graph.flow import Trace
from tersely.shrinking.graph.program import Program, operator_name
from tersely.shrinking.graph.solution import Solution
from tersely.shrinking.operators.walk import walk
from tersely.shrinking.report import Absorption

_OTHERWISE_IN_TRAINING = ("batch_norm", "attention", "softmax")
"""Parts of the names of operators whose constants differ in training."""


def absorptions(
    program: Program,
    source: MaskedWeights,
    trace: Trace,
    solution: Solution,
    *,
    others: Sequence[Program] = (),
) -> tuple[Absorption, ...]:
    """Return what each bias takes over, and whether that is the same in training.

    Args:
        program: the operators of the masked model.
        source: values of its parameters.
        trace: the result of a walk over them.
        solution: the labels that are removed.
        others: the operators with inputs of other sizes, if the walk went over them too.

    Raises:
        SessionError: forward uses other values of such a bias than its own.
    """
    counts = {one.bias: one.count(solution.of(one.labels)) for one in trace.absorbed}
    names = {operator_name(node) for node in program.nodes}
    is_fixed = not any(part in name for name in names for part in _OTHERWISE_IN_TRAINING)
    trained = trace
    if any(counts.values()) and not is_fixed:
        trained = walk(
            program,
            source,
            others=others,
            is_training=True,
            is_approximate=trace.is_approximate,
        )
    in_training = {one.bias: one for one in trained.absorbed}
    found = []
    for one in trace.absorbed:
        gone = solution.of(one.labels)
        other = in_training.get(one.bias)
        same = other is not None and torch.equal(one.shares[:, gone], other.shares[:, gone])
        if counts[one.bias]:
            source.need_own(one.bias)
            found.append(Absorption(one.bias, counts[one.bias], "both" if same else "evaluation"))
    return tuple(found)
