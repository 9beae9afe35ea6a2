"""Constants that biases take over for removed positions, and what is exact in evaluation only."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import torch

from tersely.shrinking.cutting.masked_weights import MaskedWeights
from tersely.shrinking.graph.flow import Trace
from tersely.shrinking.graph.program import Program, operator_name
from tersely.shrinking.graph.solution import Solution
from tersely.shrinking.operators.walk import walk
from tersely.shrinking.report import Absorption

_OTHERWISE_IN_TRAINING = ("attention", "softmax")
"""Parts of the names of operators that make other constants in training, as batch norms may."""


@attrs.frozen
class Taken:
    """What became of constants that are removed.

    Attributes:
        absorbed: what biases took over.
        other_in_training: readers for which a removed position is zero in evaluation alone.
    """

    absorbed: tuple[Absorption, ...]
    other_in_training: tuple[str, ...]


def absorptions(
    program: Program,
    source: MaskedWeights,
    trace: Trace,
    solution: Solution,
    *,
    others: Sequence[Program] = (),
) -> Taken:
    """Tell what each bias takes over, and whether that is the same in training.

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
    may_differ = any(part in name for name in names for part in _OTHERWISE_IN_TRAINING)
    trained = trace
    if trace.differs_in_training or (any(counts.values()) and may_differ):
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
    return Taken(tuple(found), _other_in_training(trace, trained, solution))


def _other_in_training(trace: Trace, trained: Trace, solution: Solution) -> tuple[str, ...]:
    """Readers for which a position that goes is zero in evaluation and another constant then."""
    found = {
        here.what: None
        for here, there in zip(trace.seen, trained.seen, strict=True)
        if bool(
            (solution.of(here.labels) & (here.values == 0) & (there.values.nan_to_num() != 0)).any()
        )
    }
    return tuple(found)
