"""Stages whose period has not begun: what a call needs to know of them (rule O4)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tersely.contracts.pruner import Learns
from tersely.distillation.engine import Distillation
from tersely.document.recipe import Stage
from tersely.errors import SessionError
from tersely.pruning.engine import Pruning
from tersely.quantization.engine import Quantization


def waiting_stages(stages: Iterable[Stage], steps: int) -> list[Stage]:
    """Return the stages whose period has not begun.

    Args:
        stages: the recipe's stages.
        steps: optimizer steps so far.
    """
    return [stage for stage in stages if not stage.has_begun(steps)]


def need_all_begun(stages: Sequence[Stage], steps: int, call: str) -> None:
    """Refuse a call that would leave out what is still to come.

    Args:
        stages: the recipe's stages.
        steps: optimizer steps so far.
        call: the method that was called.

    Raises:
        SessionError: pruning or quantization has not begun.
    """
    for stage in waiting_stages(stages, steps):
        if stage.method != "distillation":
            raise SessionError(
                f"{call}() comes at step {steps}, and {stage.path} begins at step {stage.begin}; "
                f"train on until then, or end an earlier period sooner by its 'until'"
            )


def need_batches(pruning: Pruning, quantization: Quantization, steps: int, call: str) -> None:
    """Refuse to train towards a stage that will have no batches to look at.

    Args:
        pruning: the session's pruning.
        quantization: its quantization.
        steps: optimizer steps so far.
        call: the method that was called.

    Raises:
        SessionError: a stage that is still to come is calibrated, and there are no batches.
    """
    if pruning.batches is not None or quantization.batches is not None:
        return
    calibrated = [run.stage for run in pruning.runs if run.is_calibrated]
    calibrated += [
        run.stage
        for run in quantization.runs
        if run.is_observing_modules
        # Ranges that follow training need no batches, and begin with them where there are some.
        or (run.activations and (quantization.has_kept_batches or run.following() is None))
    ]
    for stage in waiting_stages(calibrated, steps):
        raise SessionError(
            f"{call}() found no calibration batches, and {stage.path} ({stage.algorithm}) looks at "
            f"some when it begins, at step {stage.begin}; call session.calibrate(batches) first, "
            f"also in a session that was loaded, since batches are not saved with it"
        )


def need_begun_to_hand_over(
    pruning: Pruning, quantization: Quantization, distillation: Distillation, steps: int
) -> None:
    """Refuse to hand over what is learned while a part of it does not exist.

    Args:
        pruning: the session's pruning.
        quantization: its quantization.
        distillation: its distillation.
        steps: optimizer steps so far.

    Raises:
        SessionError: a stage that learns has not begun.
    """
    learning = [run.stage for run in pruning.runs if isinstance(run.pruner, Learns)]
    learning += [run.stage for run in quantization.runs if run.is_learning]
    learning += [pair.stage for pair in distillation.pairs if pair.is_projected]
    for stage in waiting_stages(learning, steps):
        raise SessionError(
            f"parameters() comes at step {steps}, and what {stage.path} learns is made when it "
            f"begins, at step {stage.begin}; leave what is learned to session.step(), or call "
            f"session.parameters() from that step on"
        )


def release_batches(pruning: Pruning, quantization: Quantization) -> None:
    """Forget calibration batches that nothing will look at any more.

    Args:
        pruning: the session's pruning.
        quantization: its quantization.
    """
    has_begun = (pruning.begun, quantization.begun) == (pruning.runs, quantization.runs)
    if has_begun and not (pruning.is_keeping_batches or quantization.is_keeping_batches):
        pruning.batches = quantization.batches = None
