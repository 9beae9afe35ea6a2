"""Checks what a quantizer returned against what it was asked for, and names it where it differs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tersely.arithmetic.affine import dequantize
from tersely.arithmetic.blocks import count_blocks
from tersely.arithmetic.level_tables import levels_problem
from tersely.arithmetic.qparams import QParams
from tersely.arithmetic.quantized_types import FLOAT8
from tersely.contracts.quantized_weights import QuantizedWeight
from tersely.contracts.quantizer import QuantizationTarget
from tersely.engine.isolation.foreign import wrong_return
from tersely.errors import CalibrationError, PlanError


def check_qparams(
    found: object, target: QuantizationTarget, counts: Sequence[int], *, what: str = ""
) -> QParams:
    """Return scale and zero point on the target's own grid, one pair for each block.

    Args:
        found: what an algorithm returned.
        target: what it was asked about.
        counts: blocks along each dimension.
        what: where it returned them, such as ``qparams in solve()``.

    Raises:
        PluginError: they are something else, or outside of the grid.
    """
    if not isinstance(found, QParams):
        raise wrong_return(target.plan, f"a {type(found).__name__}{what}", "QParams")
    expected = 1
    for count in counts:
        expected *= count
    for name, values in (("scales", found.scale), ("zero points", found.zero_point)):
        if values.numel() != expected:
            raise wrong_return(
                target.plan, f"{name} of shape {list(values.shape)}{what}", f"{list(counts)}"
            )
    if not bool((found.scale.isfinite() & (found.scale > 0)).all()):
        raise wrong_return(
            target.plan, f"a scale{what} that is not positive", "finite positive scales"
        )
    grid = (found.dtype, found.scheme, found.quant_min, found.quant_max)
    asked = (target.dtype, target.scheme, target.quant_min, target.quant_max)
    if grid != asked:
        raise wrong_return(target.plan, f"the grid {_spelled(grid)}{what}", _spelled(asked))
    if found.levels is not None:
        found = _with_levels(found, found.levels, target, what)
    elif found.dtype not in FLOAT8:
        found = found.evolve(zero_point=_zero_point(found.zero_point, target, what))
    is_one = expected == 1 and found.scale.ndim == 0
    shape = found.scale.shape if is_one else tuple(counts)
    return found.evolve(
        scale=found.scale.reshape(shape), zero_point=found.zero_point.reshape(shape)
    )


def check_solved(solved: object, target: QuantizationTarget) -> QuantizedWeight:
    """Return what a quantizer that changes weights found, on the target's own grid.

    Args:
        solved: what it returned.
        target: what it was asked about.

    Raises:
        PluginError: it is not a quantized weight, or has other shapes or another grid.
        CalibrationError: the new values are not finite.
    """
    if not isinstance(solved, QuantizedWeight):
        raise wrong_return(
            target.plan, f"a {type(solved).__name__}", "a tersely.QuantizedWeight or None"
        )
    shape = tuple(target.plan.shape or ()) if target.tensor is None else target.tensor.shape
    if tuple(solved.tensor.shape) != tuple(shape):
        raise wrong_return(
            target.plan, f"values of shape {list(solved.tensor.shape)}", f"{list(shape)}"
        )
    if not solved.tensor.is_floating_point():
        raise wrong_return(target.plan, f"values of dtype {solved.tensor.dtype}", "floats")
    if not bool(solved.tensor.sum().isfinite()):
        raise CalibrationError(
            f"{target.name}: {target.plan.algorithm} found values that are not finite; calibrate "
            "with more batches",
            **target.plan.place,
        )
    counts = count_blocks(target.blocks.size, shape)
    qparams = check_qparams(_with_own_levels(solved, target), target, counts, what=" in solve()")
    return QuantizedWeight(solved.tensor, qparams, solved.input_scale, qparams.levels)


def _with_own_levels(solved: QuantizedWeight, target: QuantizationTarget) -> object:
    own: object = solved.levels
    qparams: object = solved.qparams
    if own is None or not isinstance(qparams, QParams):
        return qparams
    other = qparams.levels
    if other is not None and not (isinstance(own, Tensor) and torch.equal(own.to(other), other)):
        raise wrong_return(
            target.plan, "two tables of levels in solve()", "one, in levels or in qparams"
        )
    return qparams.evolve(levels=own)


def check_simulated(
    simulated: object, value: Tensor, target: QuantizationTarget, *, what: str = "simulate()"
) -> Tensor:
    """Return what a quantizer that computes values in its own way made of a tensor.

    Args:
        simulated: what its method returned.
        value: what it was given.
        target: what it was asked about.
        what: the method, ``simulate()``, ``learned_values()`` or ``rounded()``.

    Raises:
        PluginError: the shape or dtype is another one, or finite values became something else.
    """
    if not isinstance(simulated, Tensor):
        raise wrong_return(target.plan, f"a {type(simulated).__name__} in {what}", "a tensor")
    found, expected = (tuple(simulated.shape), simulated.dtype), (tuple(value.shape), value.dtype)
    if found != expected:
        raise wrong_return(
            target.plan,
            f"{found[1]} of shape {list(found[0])} in {what}",
            f"{expected[1]} of shape {list(expected[0])}",
        )
    if bool(value.isfinite().all()) and not bool(simulated.isfinite().all()):
        raise wrong_return(target.plan, f"values in {what} that are not finite", "finite values")
    return simulated


def check_integers(
    integers: object, qparams: object, simulated: Tensor, target: QuantizationTarget
) -> tuple[Tensor, QParams]:
    """Return the integers of simulated values, which represent them exactly.

    Args:
        integers: what the algorithm's ``integers`` returned.
        qparams: how it says they are read.
        simulated: what its ``simulate`` returned for the same values.
        target: what it was asked about.

    Raises:
        PluginError: they are not integers, are outside of their range, or are read as something
            else than what is simulated.
    """
    if not isinstance(integers, Tensor) or integers.is_floating_point():
        kind = integers.dtype if isinstance(integers, Tensor) else type(integers).__name__
        raise wrong_return(target.plan, f"{kind} in integers()", "a tensor of an integer dtype")
    if integers.shape != simulated.shape:
        raise wrong_return(
            target.plan, f"integers of shape {list(integers.shape)}", f"{list(simulated.shape)}"
        )
    if not isinstance(qparams, QParams):
        raise wrong_return(target.plan, f"a {type(qparams).__name__} in integers()", "QParams")
    inside = qparams.quant_min <= int(integers.min()) and int(integers.max()) <= qparams.quant_max
    if integers.numel() and not inside:
        raise wrong_return(
            target.plan,
            f"integers from {int(integers.min())} to {int(integers.max())}",
            f"{qparams.quant_min} to {qparams.quant_max}, as it declares",
        )
    read = dequantize(integers, qparams).to(simulated.dtype)
    if not torch.allclose(read, simulated, rtol=1e-5, atol=0):
        worst = float((read - simulated).abs().max())
        raise wrong_return(
            target.plan,
            f"integers that differ from what it simulates by up to {worst:.3g}",
            "the same values",
        )
    return integers, qparams


def _with_levels(found: QParams, levels: Tensor, target: QuantizationTarget, what: str) -> QParams:
    if not target.has_levels:
        raise wrong_return(target.plan, f"levels{what}", "none, as it does not declare UsesLevels")
    problem = levels_problem(levels, target.quant_min, target.quant_max)
    if problem is not None:
        raise PlanError(
            f"{target.plan.origin.path}: {target.name}: {target.plan.algorithm}: {problem}",
            **target.plan.place,
        )
    zero_point = torch.zeros_like(found.scale, dtype=torch.int32)
    return found.evolve(levels=levels.to(found.scale), zero_point=zero_point)


def _zero_point(zero_point: Tensor, target: QuantizationTarget, what: str) -> Tensor:
    if target.has_float_zero_point:
        if not bool(zero_point.isfinite().all()):
            raise wrong_return(
                target.plan, f"a zero point{what} that is not finite", "finite zero points"
            )
        return zero_point if zero_point.is_floating_point() else zero_point.float()
    _check_whole(zero_point, target, what)
    return zero_point.to(torch.int32) if zero_point.is_floating_point() else zero_point


def _check_whole(zero_point: Tensor, target: QuantizationTarget, what: str) -> None:
    zero = zero_point.double()
    inside = (zero >= target.quant_min) & (zero <= target.quant_max)
    if not bool((inside & (zero == zero.round())).all()):
        found = float(zero[~(inside & (zero == zero.round()))][0])
        raise wrong_return(
            target.plan,
            f"the zero point {found:.6g}{what}",
            f"an integer from {target.quant_min} to {target.quant_max}",
        )


def _spelled(grid: tuple[str, str, int, int]) -> str:
    dtype, scheme, low, high = grid
    return f"{dtype} {scheme} from {low} to {high}"
