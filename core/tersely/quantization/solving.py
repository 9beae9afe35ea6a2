"""Choosing scales: from ranges, or from an algorithm that changes the weight as well."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from tersely.arithmetic.blocks import count_blocks
from tersely.arithmetic.qparams import QParams
from tersely.arithmetic.scales import check_range
from tersely.contracts.abilities import ObservesInputs
from tersely.contracts.experts import of_expert
from tersely.contracts.quantized_weights import (
    CorrectsBias,
    Equalizes,
    QuantizedWeight,
    SolvesWeights,
)
from tersely.contracts.quantizer import QuantizationTarget, choose_of
from tersely.engine.isolation.foreign import ForeignCall, calling
from tersely.engine.observation.sums import is_blank
from tersely.engine.progress import with_progress
from tersely.engine.targets.binding import BoundTarget
from tersely.errors import PlanError, PluginError, SessionError
from tersely.instrument.folding import FoldWeight
from tersely.instrument.names import SCALE, state_buffer
from tersely.instrument.scales.input_scales import along_inputs
from tersely.instrument.transforms import chain_of, processed
from tersely.quantization.biases import bias_owner
from tersely.quantization.chosen import write_together
from tersely.quantization.factors.input_factors import Reading, equalize
from tersely.quantization.integers import simulated_values
from tersely.quantization.ranges import Seen, values_of
from tersely.quantization.returned_values import check_qparams, check_simulated, check_solved
from tersely.quantization.run import QuantizationRun, is_matrix
from tersely.quantization.scale_buffers import (
    read_buffer,
    write_buffer,
    write_qparams,
)
from tersely.quantization.stacking import choose_together
from tersely.quantization.targets import target_of

Change: TypeAlias = "Callable[[BoundTarget, Tensor], None]"
"""Gives a target other values, or changes the bias of its layer, and notes what was before."""


def quantize_parameters(
    run: QuantizationRun,
    bound_targets: Sequence[BoundTarget],
    *,
    change: Change,
    correct_bias: Change,
    reading: Reading,
) -> None:
    """Choose and put in force the scales of some parameters.

    Args:
        run: the stage.
        bound_targets: parameters and buffers of the stage.
        change: gives a target other raw values.
        correct_bias: adds to the bias of a weight's layer, shape (outputs,).
        reading: how weights read their inputs.
    """
    quantizer = run.algorithm
    bound_targets = [bound for bound in bound_targets if bound not in run.given]
    if isinstance(quantizer, Equalizes):
        equalize(run, quantizer, bound_targets, reading=reading)
    together = choose_together(run, bound_targets)
    for chosen in together:
        write_together(chosen)
    done = {bound for chosen in together for bound in chosen.bound_targets}
    for bound in with_progress(bound_targets, "weights quantized"):
        if bound in done:
            continue
        observed = _observed(run, bound)
        if is_unreached(run, bound) and run.stage.unreached == "dense":
            continue
        if bound.plan.has_experts and isinstance(quantizer, SolvesWeights):
            whole = _solve_experts(run, quantizer, bound, observed)
            change(bound, _raw_weight(bound, whole))
            write_qparams(bound, whole.qparams)
            continue
        if bound in run.observed and _is_fitted(quantizer) and is_blank(observed):
            run.unranked.append(bound.plan.name)
            observed = {}
        tensor = values_of(bound)
        step = run.quantize_step(bound)
        observer = run.observer(bound)
        statistics = dict(observer.observe(tensor, step.cut.size_of(tensor)))
        target = target_of(
            bound, step.grid, tensor=tensor, observed=observed, statistics=statistics
        )
        solved, range_ = None, None
        if observed or not isinstance(quantizer, ObservesInputs):
            solved = _solve(quantizer, bound, target)
        if solved is not None:
            change(bound, _raw_weight(bound, solved))
            qparams = solved.qparams
        else:
            low, high = range_ = observer.range(statistics, target)
            qparams = choose(run, bound, low, high, target)
        write_qparams(bound, qparams, range_=range_)
        if run.simulating() is not None:
            check_simulated(simulated_values(bound), tensor, target)
        if isinstance(quantizer, CorrectsBias) and observed and bias_owner(bound) is not None:
            with torch.no_grad(), calling(bound.plan, "bias_correction"):
                found = quantizer.bias_correction(target, simulated_values(bound))
            correct_bias(bound, found)


def _solve_experts(
    run: QuantizationRun,
    quantizer: SolvesWeights,
    bound: BoundTarget,
    observed: Mapping[str, Tensor],
) -> QuantizedWeight:
    """Solve the tensor of each expert on its own; those that saw nothing are rounded to nearest."""
    observer, raw, tensor = run.observer(bound), bound.dense(), values_of(bound)
    whole = target_of(bound, run.grid(bound), tensor=tensor, observed=observed)
    if bound in run.observed and not observed:
        run.unranked.append(whole.name)
    factors = read_buffer(bound, "input_scale")
    if factors is not None:
        factors = along_inputs(factors, raw, bound.plan.input_dim).expand(len(raw), -1, -1)
    values, found = [], []
    for expert in range(len(tensor)):
        target = of_expert(whole, expert)
        statistics = dict(observer.observe(tensor[expert], target.blocks.size))
        target = target.evolve(statistics=statistics)
        solved = None
        if observed and is_blank(target.observed):
            run.unranked.append(target.name)
        elif observed or not isinstance(quantizer, ObservesInputs):
            solved = _solve(quantizer, bound, target, expert=expert)
        if solved is not None:
            values.append(solved.tensor)
            found.append(solved.qparams)
        else:
            low, high = observer.range(statistics, target)
            values.append(raw[expert] if factors is None else raw[expert] * factors[expert])
            found.append(choose(run, bound, low, high, target))
    return QuantizedWeight(torch.stack(values), _stacked(found, whole))


def _stacked(found: Sequence[QParams], target: QuantizationTarget) -> QParams:
    counts = count_blocks(target.blocks.size, target.plan.shape or ())
    scale = torch.stack([one.scale.reshape(counts[1:]) for one in found])
    zero_point = torch.stack([one.zero_point.reshape(counts[1:]) for one in found])
    for one in found:
        if not _is_same(one.levels, found[0].levels):
            raise PluginError(
                f"{target.plan.algorithm} found other levels for one expert of {target.name} than "
                "for another; expected one table for all of them",
                plugin=target.plan.algorithm,
                target=target.plan.name,
            )
    return found[0].evolve(scale=scale, zero_point=zero_point, block_size=target.blocks.size)


def _is_same(one: Tensor | None, other: Tensor | None) -> bool:
    if one is None or other is None:
        return one is other
    return torch.equal(one, other)


def _is_fitted(quantizer: object) -> bool:
    return isinstance(quantizer, (SolvesWeights, Equalizes))


def is_unreached(run: QuantizationRun, bound: BoundTarget) -> bool:
    """Tell whether calibration should have reached the module of a weight, but no batch did.

    Args:
        run: the stage.
        bound: the weight.
    """
    return bound in run.observed and not run.observed[bound]


def quantize_seen(run: QuantizationRun, observed: Mapping[BoundTarget, Seen]) -> None:
    """Choose and put in force the scales of a stage's inputs and outputs.

    Args:
        run: the stage.
        observed: what calibration saw of them.

    Raises:
        SessionError: one was not calibrated.
    """
    for bound in run.activations:
        if bound in run.given:
            continue
        seen = observed.get(bound)
        if seen is None:
            if run.follows_training() is not None:
                continue  # the first training forward gives it a range
            if observed and run.stage.unreached != "error":
                continue  # calibration did not reach it, and it stays as it is
            raise SessionError(
                f"{bound.plan.name} is quantized by the range that calibration sees; call "
                "session.calibrate(batches) before session.compress()",
                **bound.plan.place,
            )
        step = run.quantize_step(bound)
        size = seen.blocks or None
        target = target_of(bound, step.grid, size=size, statistics=seen.statistics)
        low, high = map(seen.kept, seen.observer.range(seen.statistics, target))
        qparams = choose(run, bound, low, high, target)
        if run.follows_training() is not None and read_buffer(bound, "low") is None:
            write_buffer(bound, "low", low.float())
            write_buffer(bound, "high", high.float())
        write_qparams(bound, qparams, range_=(low, high))
        if step.cut.kind == "fixed" and size is not None:
            write_buffer(bound, "size", torch.tensor(size))


def choose(
    run: QuantizationRun, bound: BoundTarget, low: Tensor, high: Tensor, target: QuantizationTarget
) -> QParams:
    """Ask an algorithm for scale and zero point, and check what it returns.

    Args:
        run: the stage.
        bound: the target.
        low: one value per block.
        high: the same shape.
        target: the target as the algorithm sees it.

    Raises:
        CalibrationError: the range is empty or not finite.
        PluginError: the algorithm failed, or its answer cannot be used.
    """
    name, algorithm = bound.plan.name, bound.plan.algorithm
    check_range(low, high, name)
    failure = f"{algorithm} failed on {name}"
    with ForeignCall(failure, plugin=algorithm, target=name), torch.no_grad():
        found = choose_of(run.algorithm)(low, high, target)
    return check_qparams(found, target, low.shape)


def _observed(run: QuantizationRun, bound: BoundTarget) -> dict[str, Tensor]:
    found = run.observed.get(bound)
    if found is None:
        if run.is_observing_modules and is_matrix(bound):
            raise SessionError(
                f"{bound.plan.name} is quantized by what {bound.plan.algorithm} sees in "
                "calibration; call session.calibrate(batches) before session.compress()",
                **bound.plan.place,
            )
        return {}
    return found


def _solve(
    quantizer: object,
    bound: BoundTarget,
    target: QuantizationTarget,
    *,
    expert: int | None = None,
) -> QuantizedWeight | None:
    name, algorithm = target.name, bound.plan.algorithm
    factors = read_buffer(bound, "input_scale")

    def refusal(error: ValueError) -> PlanError:
        return PlanError(f"{bound.plan.origin.path}: {name}: {error}", **bound.plan.place)

    failure = f"{algorithm} failed on {name}"
    with (
        ForeignCall(failure, plugin=algorithm, target=bound.plan.name, refusal=refusal),
        torch.no_grad(),
    ):
        solved: QuantizedWeight | None
        if isinstance(quantizer, Equalizes) and factors is not None:
            plain = processed(bound.module, bound.plan.target, bound.dense(), until=SCALE)
            if expert is not None:
                plain = plain[expert]
                factors = factors[expert] if factors.ndim > 1 else factors
            solved = quantizer.solve_scaled(target.evolve(tensor=plain), factors)
        elif isinstance(quantizer, SolvesWeights):
            solved = quantizer.solve(target)
        else:
            return None
    if solved is None:
        return None  # the algorithm leaves the values as they are
    return check_solved(solved, target)


def _raw_weight(bound: BoundTarget, solved: QuantizedWeight) -> Tensor:
    """Return solved values as raw ones: without the steps that come before quantization."""
    values = solved.tensor
    factors = bound.module._buffers.get(state_buffer(bound.plan.target, "input_scale"))
    if factors is not None:
        values = values / along_inputs(factors, values, bound.plan.input_dim)
    for step in chain_of(bound.module, bound.plan.target):
        if isinstance(step, FoldWeight):
            values = step.raw(bound.module, values, bound.dense())
    return values
