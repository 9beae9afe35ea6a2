"""Whether every target has the scale that a call needs, and what to call first if not."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence

from tersely.engine.targets.binding import BoundTarget
from tersely.errors import CompressionWarning, SessionError
from tersely.quantization.in_force import qparams_of
from tersely.quantization.ranges import Seen
from tersely.quantization.run import QuantizationRun


def need_scales_to_step(runs: Sequence[QuantizationRun], seen: Mapping[BoundTarget, Seen]) -> None:
    """Refuse to step while a target has no scale and training makes none.

    Args:
        runs: the stages that have begun.
        seen: what calibration saw of inputs and outputs.

    Raises:
        SessionError: `compress` was not called, or the model does not train.
    """
    for run in runs:
        if run.follows_training() is not None:
            _need_training_mode(run, seen)
        for bound in () if run.follows_training() else (*run.parameters, *run.activations):
            if run.is_simulated(bound) and qparams_of(run, bound, seen) is None:
                raise SessionError(
                    f"step() found no scale of {bound.plan.name}; call session.compress() "
                    "before the training loop",
                    **bound.plan.place,
                )


def _need_training_mode(run: QuantizationRun, seen: Mapping[BoundTarget, Seen]) -> None:
    followed = [one for one in (*run.parameters, *run.activations) if run.is_simulated(one)]
    if not followed or any(
        bound.module.training or qparams_of(run, bound, seen) is not None for bound in followed
    ):
        return
    raise SessionError(
        f"step() found no range of {followed[0].plan.name}: the model is in evaluation mode, "
        f"in which {run.stage.algorithm} observes nothing; call model.train() before the "
        "training loop",
        **followed[0].plan.place,
    )


def need_scales_to_finish(
    runs: Sequence[QuantizationRun],
    seen: Mapping[BoundTarget, Seen],
    call: str,
    *,
    is_compressed: bool,
) -> None:
    """Refuse to finish while a target has no scale.

    Args:
        runs: all stages.
        seen: what calibration saw of inputs and outputs.
        call: the method that was called.
        is_compressed: whether scales were chosen.

    Raises:
        SessionError: a target has no scale; the text says what to call.
    """
    for run, bound in _without_scale(runs, seen, is_compressed=is_compressed):
        first = "call session.compress() first"
        if bound.is_activation and bound not in seen:
            first = "call session.calibrate(batches) and session.compress() first"
        if run.follows_training() is not None:
            first = "train some steps in training mode, or " + first
        raise SessionError(
            f"{call}() found no scale of {bound.plan.name}; {first}",
            **bound.plan.place,
        )


def _without_scale(
    runs: Sequence[QuantizationRun], seen: Mapping[BoundTarget, Seen], *, is_compressed: bool
) -> Iterator[tuple[QuantizationRun, BoundTarget]]:
    for run in runs:
        for bound in (*run.parameters, *run.activations, *run.derived):
            if not run.is_simulated(bound) or qparams_of(run, bound, seen) is not None:
                continue
            if is_compressed and run.stage.unreached != "error":
                continue  # calibration did not reach it, and it stays as it is
            yield run, bound


_STEPS_TO_BE_REACHED = 100
_SHOWN = 10


def warn_of_unreached(
    runs: Sequence[QuantizationRun],
    seen: Mapping[BoundTarget, Seen],
    *,
    steps: int,
    is_compressed: bool,
) -> None:
    """Warn, a hundred steps after a stage began, of targets that no forward of training reached.

    Args:
        runs: the stages that have begun.
        seen: what calibration saw of inputs and outputs.
        steps: optimizer steps, this one counted.
        is_compressed: whether scales were chosen.
    """
    due = [
        run
        for run in runs
        if run.follows_training() is not None and steps - run.stage.begin == _STEPS_TO_BE_REACHED
    ]
    names = [one.plan.name for _, one in _without_scale(due, seen, is_compressed=is_compressed)]
    if not names:
        return
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    warnings.warn(
        f"in {_STEPS_TO_BE_REACHED} steps no forward in training mode has reached "
        f"{', '.join(names[:_SHOWN])}{more}, so they have no scales, and finalize() will be "
        "refused; train these modules, calibrate and compress, or leave them out with "
        "exclude_op_names",
        CompressionWarning,
        stacklevel=4,
    )
