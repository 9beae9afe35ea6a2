"""What calibration is to see, or has seen, of the inputs and outputs of stages."""

from __future__ import annotations

from collections.abc import Sequence

from tersely.engine.state.saver import Saved
from tersely.engine.targets.binding import BoundTarget
from tersely.quantization.ranges import Seen, rebuilt_seen
from tersely.quantization.run import QuantizationRun
from tersely.quantization.scale_buffers import device_of


def unseen(runs: Sequence[QuantizationRun]) -> list[Seen]:
    """Return what calibration is to see of each input and output without a given scale.

    Args:
        runs: some stages.
    """
    return [
        Seen(
            bound,
            run.quantize_step(bound).cut,
            run.observer(bound),
            is_required=run.stage.unreached == "error",
        )
        for run in runs
        for bound in run.activations
        if bound not in run.given
    ]


def restored_seen(runs: Sequence[QuantizationRun], saved: Saved) -> dict[BoundTarget, Seen]:
    """Return what calibration had seen when a session was saved.

    Args:
        runs: all stages.
        saved: a checked state.
    """
    about = saved.data["seen"]
    return {
        bound: rebuilt_seen(
            Seen(bound, run.quantize_step(bound).cut, run.observer(bound)),
            {part: one.to(device_of(bound)) for part, one in statistics.items()},
            about[bound.plan.name],
        )
        for run in runs
        for bound in run.all_bound_targets
        if (statistics := saved.of("seen", bound.plan.name))
    }
