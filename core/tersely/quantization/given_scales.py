"""Scales and zero points that the user gave: put in force, and learned where that is asked for."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from tersely.arithmetic.qparams import QParams
from tersely.contracts.quantized_forward import LearnsScales
from tersely.engine.targets.binding import BoundTarget
from tersely.errors import SessionError
from tersely.instrument.names import learned_buffer
from tersely.instrument.scales.moving_range import end_step
from tersely.quantization.learned_scales import place_learned
from tersely.quantization.ranges import Seen
from tersely.quantization.run import QuantizationRun, learned_of
from tersely.quantization.scale_buffers import (
    range_of,
    read_buffer,
    write_buffer,
    write_qparams,
)


def note_given(
    run: QuantizationRun, given: Mapping[BoundTarget, QParams | None], *, is_frozen: bool
) -> set[BoundTarget]:
    """Note whose scales the user gives, and forget what was learned where that changes.

    Args:
        run: the stage.
        given: some of its targets, each with its parameters, or None to leave it to the algorithm.
        is_frozen: whether training leaves them alone.

    Returns:
        The targets that are frozen now and were not, or the other way around.
    """
    before = run.frozen
    taken = {bound for bound, qparams in given.items() if qparams is not None}
    run.given = run.given.difference(given).union(taken)
    run.frozen = before.difference(set(given) - taken).union(taken if is_frozen else ())
    changed = set(before.symmetric_difference(run.frozen))
    for bound in changed:
        for name in learned_of(bound):
            for module, attribute in bound.owners:
                module._buffers.pop(learned_buffer(attribute, name), None)
    return changed


def write_all_given(
    run: QuantizationRun, given: Mapping[BoundTarget, QParams | None], *, has_begun: bool
) -> None:
    """Put in force what the user gave of one stage, and let it be learned where that is asked for.

    Args:
        run: the stage.
        given: some of its targets, each with its parameters, or None to leave it to the algorithm.
        has_begun: whether the stage has begun.

    Raises:
        SessionError: what the algorithm learns cannot represent scales and zero points.
    """
    for bound, qparams in given.items():
        if qparams is None:
            continue
        write_given(run, bound, qparams)
        if run.is_learning and bound not in run.frozen and has_begun:
            learn_given(run, bound)


def write_given(run: QuantizationRun, bound: BoundTarget, qparams: QParams) -> None:
    """Put scale and zero point in force that the user gave, in place where the target has scales.

    Args:
        run: the stage.
        bound: the target.
        qparams: the parameters, in the shape in which they are kept.
    """
    if run.follows_training() is not None:
        if read_buffer(bound, "low") is None:
            for part, end in zip(("low", "high"), range_of(qparams), strict=True):
                write_buffer(bound, part, end)
        for module, attribute in bound.owners:
            end_step(module, attribute)
    write_qparams(bound, qparams, range_=range_of(qparams))
    if run.quantize_step(bound).cut.size is not None and qparams.block_size is not None:
        write_buffer(bound, "size", torch.tensor(qparams.block_size))


def learn_given(run: QuantizationRun, bound: BoundTarget) -> None:
    """Let an algorithm learn the scale of a target, from the one that the user gave.

    Args:
        run: the stage, whose algorithm learns.
        bound: a target whose given scale is in its buffers.

    Raises:
        SessionError: what the algorithm learns cannot represent scales and zero points.
    """
    learner, qparams = run.algorithm, run.quantize_step(bound).qparams(bound.module)
    assert isinstance(learner, LearnsScales)  # the caller has checked
    assert qparams is not None  # it was given
    learned = run.learned(bound)
    if not learned:
        place_learned(run, bound, _as_if_seen(run, bound, qparams))
        learned = run.learned(bound)
    given = {"scale": qparams.scale, "zero_point": qparams.zero_point}
    with torch.no_grad():
        for name, leaf in learned.items():
            if name in given:
                leaf.copy_(given[name].reshape(leaf.shape))
    meaning = learner.meaning(qparams, learned)
    if not (
        torch.allclose(meaning.scale, qparams.scale.to(meaning.scale))
        and torch.equal(meaning.zero_point.double(), qparams.zero_point.double())
    ):
        raise SessionError(
            f"{bound.plan.algorithm} learns {', '.join(learned)} of {bound.plan.name}, which "
            "cannot represent the given scale and zero point; give them with freeze=True, or let "
            "the algorithm choose them",
            **bound.plan.place,
        )


def _as_if_seen(run: QuantizationRun, bound: BoundTarget, qparams: QParams) -> Seen | None:
    """Return what calibration would have seen of an input or output with this range."""
    if not bound.is_activation:
        return None
    cut, observer = run.quantize_step(bound).cut, run.observer(bound)
    ends = torch.stack(range_of(qparams))
    layouts: dict[str, tuple[Tensor, tuple[int, ...]]] = {
        "tensor": (ends.reshape(-1), (-1,)),
        "channel": (ends.reshape(len(ends), -1), (-1, 1)),
    }
    # Of blocks each is shown by one value: the first of all dimensions holds both ends.
    values, size = layouts.get(cut.kind, (ends, (-1, *(1,) * qparams.scale.ndim)))
    blocks = read_buffer(bound, "size")
    found = Seen(bound, cut, observer, dict(observer.observe(values, size)))
    found.blocks = () if blocks is None else tuple(blocks.tolist())
    return found
