"""Scales and zero points that the user sets: checked against the targets they are for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from tersely.arithmetic.blocks import count_blocks, resolve_size
from tersely.arithmetic.level_tables import levels_problem
from tersely.arithmetic.numbered import Numbering
from tersely.arithmetic.qparams import QParams
from tersely.arithmetic.quantized_types import FLOAT8
from tersely.engine.targets.binding import BoundTarget
from tersely.engine.targets.by_target import each_by_target, find_bound_target
from tersely.errors import SessionError
from tersely.instrument.scales.block_cuts import BlockCut
from tersely.instrument.scales.quantizing import Grid
from tersely.quantization.ranges import Seen
from tersely.quantization.run import QuantizationRun
from tersely.quantization.scale_buffers import device_of

ByHand: TypeAlias = "Mapping[str, Mapping[str, QParams | None]]"
"""Module -> target -> its parameters, or None to leave them to the algorithm again."""


def checked_qparams(
    given: ByHand, runs: Sequence[QuantizationRun], seen: Mapping[BoundTarget, Seen]
) -> dict[BoundTarget, tuple[QuantizationRun, QParams | None]]:
    """Return the user's scales and zero points by target, in the shapes in which they are kept.

    Args:
        given: what the user sets.
        runs: the session's quantization stages.
        seen: what calibration saw of inputs and outputs, of which shapes may be known.

    Raises:
        SessionError: there is no such target, or the parameters do not fit it.
    """
    run_of = {bound: run for run in runs for bound in run.all_bound_targets}
    by_name = {(bound.plan.module, bound.plan.target): bound for bound in run_of}
    found = {}
    for module, target, qparams in each_by_target(given, "set_qparams"):
        bound = find_bound_target(module, target, by_name)
        run = run_of[bound]
        _need_own_scale(run, bound)
        fits = None if qparams is None else _checked(run, bound, qparams, seen.get(bound))
        found[bound] = (run, fits)
    return found


def _need_own_scale(run: QuantizationRun, bound: BoundTarget) -> None:
    if bound in run.derived:
        raise SessionError(
            f"{bound.plan.name} is quantized by the scales of its input and its weight; set those",
            **bound.plan.place,
        )
    if bound.is_activation and run.is_dynamic(bound):
        raise SessionError(
            f"{bound.plan.name} is quantized by the range of each call's own values, so it has no "
            "scale to set; write another granularity, or options that choose one scale for all "
            "calls",
            **bound.plan.place,
        )


def _checked(
    run: QuantizationRun, bound: BoundTarget, qparams: QParams, seen: Seen | None
) -> QParams:
    found: object = qparams
    if not isinstance(found, QParams):
        raise _misfit(bound, f"found a {type(found).__name__}, expected tersely.QParams or None")
    step = run.quantize_step(bound)
    _check_grid(bound, qparams, step.grid)
    scale, zero_point = _checked_tensors(bound, qparams, step.grid)
    levels = _checked_levels(bound, qparams, step.grid)
    if run.simulating() is None and levels is None:
        _check_middle(bound, zero_point, step.grid)
    shape = _kept_shape(bound, qparams, step.cut, seen)
    return step.made(scale.reshape(shape), zero_point.reshape(shape)).evolve(
        block_size=qparams.block_size, levels=None if levels is None else levels.to(scale)
    )


def _check_grid(bound: BoundTarget, qparams: QParams, grid: Grid) -> None:
    for name in ("dtype", "scheme", "quant_min", "quant_max"):
        found, planned = getattr(qparams, name), getattr(grid, name)
        if found != planned:
            raise _misfit(bound, f"{name} is {found!r}, and the plan has {planned!r}")


def _checked_tensors(bound: BoundTarget, qparams: QParams, grid: Grid) -> tuple[Tensor, Tensor]:
    for name in ("scale", "zero_point"):
        found: object = getattr(qparams, name)
        if not isinstance(found, Tensor):
            raise _misfit(bound, f"{name} is a {type(found).__name__}, expected a tensor")
    device = device_of(bound)
    scale, zero_point = qparams.scale.detach().to(device), qparams.zero_point.detach().to(device)
    if not scale.is_floating_point():
        raise _misfit(bound, f"scale has dtype {_short(scale)}, expected a float type")
    if zero_point.shape != scale.shape:
        raise _misfit(
            bound,
            f"zero_point has shape {list(zero_point.shape)}, expected the scale's "
            f"{list(scale.shape)}",
        )
    if scale.dtype != torch.float64:
        scale = scale.float()
    is_usable = scale.isfinite() & (scale > 0)
    if not bool(is_usable.all()):
        wrong = float(scale[~is_usable].flatten()[0])
        raise _misfit(bound, f"a scale is {wrong}, expected finite numbers above 0")
    if grid.has_float_zero_point:
        if not bool(zero_point.isfinite().all()):
            raise _misfit(bound, "zero_point holds values that are not finite")
        return scale, zero_point.to(scale.dtype)
    whole = zero_point.double().round()
    if zero_point.dtype == torch.bool or not bool((whole == zero_point).all()):
        raise _misfit(bound, "zero_point holds values that are not integers")
    if not bool(((whole >= grid.quant_min) & (whole <= grid.quant_max)).all()):
        raise _misfit(
            bound,
            f"zero_point lies between {int(whole.min())} and {int(whole.max())}, outside of the "
            f"integers {grid.quant_min} to {grid.quant_max}",
        )
    return scale, whole.to(torch.int32)


def _checked_levels(bound: BoundTarget, qparams: QParams, grid: Grid) -> Tensor | None:
    if qparams.levels is None:
        return None
    if not grid.has_levels:
        raise _misfit(bound, f"{bound.plan.algorithm} has no table of levels")
    problem = levels_problem(qparams.levels, grid.quant_min, grid.quant_max)
    if problem is not None:
        raise _misfit(bound, problem)
    return qparams.levels.detach()


def _check_middle(bound: BoundTarget, zero_point: Tensor, grid: Grid) -> None:
    is_float8 = grid.dtype in FLOAT8
    if not is_float8 and grid.scheme != "symmetric":
        return
    middle = 0 if is_float8 else (grid.quant_max + grid.quant_min + 1) // 2
    if not bool((zero_point == middle).all()):
        raise _misfit(
            bound, f"zero_point has to be {middle} for {grid.dtype} that is {grid.scheme}"
        )


def _kept_shape(
    bound: BoundTarget, qparams: QParams, cut: BlockCut, seen: Seen | None
) -> tuple[int, ...]:
    """Return the shape in which a target's scale is kept, once what was given is known to fit."""
    found, count = tuple(qparams.scale.shape), qparams.scale.numel()
    if bound.plan.shape is not None:
        return _parameter_shape(bound, qparams, bound.plan.shape)
    if cut.kind == "tensor":
        if count != 1:
            raise _misfit(bound, f"scale has shape {list(found)}, expected one scale: []")
        return ()
    known = () if seen is None else _kept_of(seen)
    if cut.kind == "channel":
        if max(found, default=1) != count:
            raise _misfit(
                bound, f"scale has shape {list(found)}, expected one scale for each channel"
            )
        if known and _product(known) != count:
            raise _misfit(
                bound,
                f"scale has shape {list(found)}, expected {list(known)}: calibration saw "
                f"{_product(known)} channels",
            )
        return known or (cut.channel_shape(count) if found in ((), (count,)) else found)
    if qparams.block_size is None or len(qparams.block_size) != len(found):
        raise _misfit(
            bound,
            f"scale has shape {list(found)} and block_size is {qparams.block_size}, expected a "
            "scale for each block and a block_size of as many dimensions",
        )
    if known and known != found:
        raise _misfit(bound, f"scale has shape {list(found)}, expected {list(known)}")
    return found


def _kept_of(seen: Seen) -> tuple[int, ...]:
    size = resolve_size(seen.blocks, seen.shape)
    counts = [length // one for length, one in zip(seen.shape, size, strict=True)]
    return tuple(seen.kept(torch.empty(counts, device="meta")).shape)


def _parameter_shape(
    bound: BoundTarget, qparams: QParams, shape: tuple[int, ...]
) -> tuple[int, ...]:
    assert bound.plan.blocks is not None  # a quantized parameter has them
    size = bound.plan.blocks.size
    is_whole = all(one == -1 for one in size)
    resolved = resolve_size(size, shape)
    blocks = count_blocks(size, shape)
    expected = () if is_whole else blocks
    found = tuple(qparams.scale.shape)
    # One scale, or a vector along the one dimension that is divided, cannot be misread.
    is_plain = len(found) <= 1 and max(blocks, default=1) == _product(blocks)
    if found != expected and not (is_plain and _product(found) == _product(blocks)):
        raise _misfit(bound, f"scale has shape {list(found)}, expected {list(expected)}")
    if qparams.block_size is not None and not is_whole:
        try:
            given = resolve_size(qparams.block_size, shape)
        except ValueError as error:
            raise _misfit(bound, f"block_size: {error}") from None
        if given != resolved:
            raise _misfit(
                bound, f"block_size is {_spelled(given)}, and the plan has {_spelled(size)}"
            )
    return expected


def _spelled(size: tuple[int, ...]) -> str:
    return repr(size) if isinstance(size, Numbering) else str(list(size))


def _product(lengths: Sequence[int]) -> int:
    product = 1
    for length in lengths:
        product *= length
    return product


def _short(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _misfit(bound: BoundTarget, problem: str) -> SessionError:
    return SessionError(
        f"{bound.plan.name}: the given scales do not fit: {problem}", **bound.plan.place
    )
