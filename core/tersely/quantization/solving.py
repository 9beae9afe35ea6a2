"""Choosing scales: from ranges, or from an algorithm that changes the weight as well."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from tersely.arithmetic.affine import check_range
from tersely.arithmetic.qparams import QParams
from tersely.contracts.abilities import ObservesInputs
from tersely.contracts.quantizer import (
    CorrectsBias,
    Equalizes,
    QuantizationTarget,
    QuantizedWeight,
    SolvesWeights,
    choose_of,
)
from tersely.engine.binding import Handle
from tersely.engine.sums import is_blank
from tersely.errors import CalibrationError, PlanError, PluginError, SessionError, TerselyError
from tersely.instrument.input_scales import along_inputs
from tersely.instrument.names import FOLD, SCALE, state_buffer
from tersely.instrument.transforms import chain_of, processed
from tersely.quantization.integers import simulated_values
from tersely.quantization.placing import read_buffer, write_buffer, write_qparams
from tersely.quantization.ranges import Seen, values_of
from tersely.quantization.run import QuantizationRun, is_matrix
from tersely.quantization.targets import target_of

Change: TypeAlias = "Callable[[Handle, Tensor], None]"
"""Gives a target other values, or the bias beside a weight a change, and notes what was before."""


def quantize_parameters(
    run: QuantizationRun, handles: Sequence[Handle], *, change: Change, correct_bias: Change
) -> None:
    """Choose and put in force the scales of some parameters.

    Args:
        run: the stage.
        handles: parameters and buffers of the stage.
        change: gives a target other raw values.
        correct_bias: adds to the bias beside a weight, shape (outputs,).
    """
    quantizer = run.algorithm
    if isinstance(quantizer, Equalizes):
        _equalize(run, quantizer, handles)
    for handle in handles:
        observed = _observed(run, handle)
        if is_unreached(run, handle) and run.stage.unreached == "dense":
            continue
        if handle in run.observed and _is_fitted(quantizer) and is_blank(observed):
            run.unranked.append(handle.plan.name)
            observed = {}
        tensor = values_of(handle)
        _check_values(handle, tensor)
        step = run.quantize_step(handle)
        observer = run.observer(handle)
        statistics = dict(observer.observe(tensor, step.cut.size_of(tensor)))
        target = target_of(
            handle, step.grid, tensor=tensor, observed=observed, statistics=statistics
        )
        solved = None
        if observed or not isinstance(quantizer, ObservesInputs):
            solved = _solve(quantizer, handle, target)
        if solved is not None:
            change(handle, _raw_weight(handle, solved))
            qparams = solved.qparams
        else:
            low, high = observer.range(statistics, target)
            qparams = choose(run, handle, low, high, target)
        write_qparams(handle, qparams)
        if isinstance(quantizer, CorrectsBias) and observed and _has_bias(handle):
            with torch.no_grad():
                found = quantizer.bias_correction(target, simulated_values(handle))
            correct_bias(handle, found)


def _is_fitted(quantizer: object) -> bool:
    return isinstance(quantizer, (SolvesWeights, Equalizes))


def is_unreached(run: QuantizationRun, handle: Handle) -> bool:
    """Tell whether calibration was to show the module of a weight, and no batch reached it.

    Args:
        run: the stage.
        handle: the weight.
    """
    return handle in run.observed and not run.observed[handle]


def quantize_seen(run: QuantizationRun, observed: Mapping[Handle, Seen]) -> None:
    """Choose and put in force the scales of a stage's inputs and outputs.

    Args:
        run: the stage.
        observed: what calibration saw of them.

    Raises:
        SessionError: one was not calibrated.
    """
    for handle in run.activations:
        seen = observed.get(handle)
        if seen is None:
            if run.follows_training() is not None:
                continue  # the first training forward gives it a range
            if observed and run.stage.unreached != "error":
                continue  # calibration did not reach it, and it stays as it is
            raise SessionError(
                f"{handle.plan.name} is quantized by the range that calibration sees; call "
                f"session.calibrate(batches) before session.compress()",
                **handle.plan.place,
            )
        step = run.quantize_step(handle)
        size = seen.blocks or None
        target = target_of(handle, step.grid, size=size, statistics=seen.statistics)
        low, high = map(seen.kept, seen.observer.range(seen.statistics, target))
        qparams = choose(run, handle, low, high, target)
        if run.follows_training() is not None:
            write_buffer(handle, "low", low.float())
            write_buffer(handle, "high", high.float())
        write_qparams(handle, qparams)
        if step.cut.kind == "fixed" and size is not None:
            write_buffer(handle, "size", torch.tensor(size))


def choose(
    run: QuantizationRun, handle: Handle, low: Tensor, high: Tensor, target: QuantizationTarget
) -> QParams:
    """Ask an algorithm for scale and zero point, and check what it returns.

    Args:
        run: the stage.
        handle: the target.
        low: one value per block.
        high: the same shape.
        target: the target as the algorithm sees it.

    Raises:
        CalibrationError: the range is empty or not finite.
        PluginError: the algorithm failed, or its answer cannot be used.
    """
    name, algorithm = handle.plan.name, handle.plan.algorithm
    check_range(low, high, name)
    try:
        with torch.no_grad():
            found = choose_of(run.algorithm)(low, high, target)
    except TerselyError:
        raise
    except Exception as error:  # foreign code: whatever it raises belongs in the message
        raise PluginError(
            f"{algorithm} failed on {name}: {type(error).__name__}: {error}",
            plugin=handle.plan.algorithm,
            target=handle.plan.name,
        ) from error
    if not isinstance(found, QParams):
        raise PluginError(
            f"{algorithm} returned a {type(found).__name__} for {name}, not QParams",
            plugin=handle.plan.algorithm,
            target=handle.plan.name,
        )
    if found.scale.numel() != low.numel():
        raise PluginError(
            f"{algorithm} returned scales of shape {list(found.scale.shape)} for {name}; expected "
            f"{list(low.shape)}",
            plugin=handle.plan.algorithm,
            target=handle.plan.name,
        )
    if not bool((found.scale.isfinite() & (found.scale > 0)).all()):
        raise PluginError(
            f"{algorithm} returned a scale for {name} that is not positive",
            plugin=handle.plan.algorithm,
            target=handle.plan.name,
        )
    shape = found.scale.shape if low.numel() == 1 and found.scale.ndim == 0 else low.shape
    return found.evolve(
        scale=found.scale.reshape(shape), zero_point=found.zero_point.reshape(shape)
    )


def _observed(run: QuantizationRun, handle: Handle) -> dict[str, Tensor]:
    found = run.observed.get(handle)
    if found is None:
        if run.is_observing_modules and is_matrix(handle):
            raise SessionError(
                f"{handle.plan.name} is quantized by what {handle.plan.algorithm} sees in "
                f"calibration; call session.calibrate(batches) before session.compress()",
                **handle.plan.place,
            )
        return {}
    return found


def _check_values(handle: Handle, tensor: Tensor) -> None:
    if tensor.numel() == 0:
        raise CalibrationError(
            f"{handle.plan.name} is empty (shape {list(tensor.shape)}), so it has no range; leave "
            f"it out with exclude_op_names",
            **handle.plan.place,
        )


def _solve(quantizer: object, handle: Handle, target: QuantizationTarget) -> QuantizedWeight | None:
    name, algorithm = handle.plan.name, handle.plan.algorithm
    factors = read_buffer(handle, "input_scale")
    try:
        with torch.no_grad():
            solved: QuantizedWeight | None
            if isinstance(quantizer, Equalizes) and factors is not None:
                plain = processed(handle.module, handle.plan.target, handle.dense(), until=SCALE)
                solved = quantizer.solve_scaled(target.evolve(tensor=plain), factors)
            elif isinstance(quantizer, SolvesWeights):
                solved = quantizer.solve(target)
            else:
                return None
    except ValueError as error:
        if isinstance(error, TerselyError):
            raise
        raise PlanError(
            f"{handle.plan.origin.path}: {name}: {error}", **handle.plan.place
        ) from error
    if solved is None:
        return None  # the algorithm leaves the values as they are
    if solved.tensor.shape != handle.plan.shape:
        raise PluginError(
            f"{algorithm} returned values of shape {list(solved.tensor.shape)} for {name}; "
            f"expected {list(handle.plan.shape or ())}",
            plugin=handle.plan.algorithm,
            target=handle.plan.name,
        )
    if not bool(solved.tensor.sum().isfinite()):
        raise CalibrationError(
            f"{name}: {algorithm} found values that are not finite; calibrate with more batches",
            **handle.plan.place,
        )
    return solved


def _raw_weight(handle: Handle, solved: QuantizedWeight) -> Tensor:
    """Return what was solved as raw values: before the steps that come in front of quantization."""
    values = solved.tensor
    for step in chain_of(handle.module, handle.plan.target):
        if step.place == FOLD:
            raise PlanError(
                f"{handle.plan.origin.path}: {handle.plan.name}: {handle.plan.algorithm} changes "
                f"weights, and this one is folded with a batch norm; fold before, by a session of "
                f"its own, or leave it out of fuse_names",
                **handle.plan.place,
            )
    factors = handle.module._buffers.get(state_buffer(handle.plan.target, "input_scale"))
    if factors is not None:
        values = values / along_inputs(factors, values, handle.plan.input_dim)
    return values


def _equalize(run: QuantizationRun, quantizer: Equalizes, handles: Sequence[Handle]) -> None:
    groups: dict[int, list[Handle]] = {}
    for handle in handles:
        if run.observed.get(handle) and is_matrix(handle) and not is_blank(run.observed[handle]):
            groups.setdefault(id(run.observed[handle]), []).append(handle)
    for members in groups.values():
        for handle in members:
            write_buffer(handle, "input_scale", None)
        targets = [
            target_of(
                handle,
                run.grid(handle),
                tensor=values_of(handle),
                observed=_observed(run, handle),
            )
            for handle in members
        ]
        with torch.no_grad():
            factors = quantizer.input_scales(targets)
        if not bool((factors.isfinite() & (factors > 0)).all()):
            raise CalibrationError(
                f"{members[0].plan.name}: {members[0].plan.algorithm} found input scales that are "
                f"not positive; calibrate with more batches",
                **members[0].plan.place,
            )
        for handle in members:
            write_buffer(handle, "input_scale", factors.to(handle.raw.device))


def _has_bias(handle: Handle) -> bool:
    return handle.plan.target == "weight" and handle.module._parameters.get("bias") is not None
