"""The order of calls: what quantization must have for a call to make sense."""

from __future__ import annotations

from tersely.errors import SessionError
from tersely.quantization.engine import Quantization


def need_scales(quantization: Quantization, call: str) -> None:
    """Refuse a call that needs every scale in force.

    Args:
        quantization: the session's quantization.
        call: the method that was called.

    Raises:
        SessionError: a target has no scale yet.
    """
    for run in quantization.runs:
        for handle in (*run.parameters, *run.activations, *run.derived):
            if not run.is_simulated(handle) or quantization.qparams_of(run, handle) is not None:
                continue
            first = "call session.compress() first"
            if handle.is_activation and handle not in quantization.seen:
                first = "call session.calibrate(batches) and session.compress() first"
            if run.following() is not None:
                first = "train some steps in training mode, or " + first
            raise SessionError(f"{call}() found no scale of {handle.plan.name}; {first}")


def need_scales_to_step(quantization: Quantization) -> None:
    """Refuse to step before scales are there, unless training makes them.

    Args:
        quantization: the session's quantization.

    Raises:
        SessionError: something must be called first.
    """
    if quantization.is_compressed:
        return
    for run in quantization.begun:
        for handle in () if run.following() else (*run.parameters, *run.activations):
            if run.is_simulated(handle) and quantization.qparams_of(run, handle) is None:
                raise SessionError(
                    f"step() found no scale of {handle.plan.name}; call session.compress() "
                    f"before the training loop"
                )
