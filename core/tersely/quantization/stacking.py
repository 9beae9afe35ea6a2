"""Small weights of one kind, whose scales are chosen together: a call costs more than its result.

One tensor with a row per weight, each of its blocks within a row, has the ranges and the scales of
the weights one after the other.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

import torch

from tersely.arithmetic.blocks import Blocks
from tersely.arithmetic.numbered import Numbering
from tersely.arithmetic.qparams import QParams
from tersely.arithmetic.ranges import MinMax, block_range
from tersely.arithmetic.scales import choose_qparams
from tersely.contracts.quantized_forward import Simulates
from tersely.contracts.quantized_weights import CorrectsBias, Equalizes, SolvesWeights
from tersely.contracts.quantizer import choose_of
from tersely.engine.targets.binding import BoundTarget
from tersely.errors import CalibrationError
from tersely.quantization.ranges import all_values_of
from tersely.quantization.run import QuantizationRun
from tersely.quantization.scale_buffers import Chosen
from tersely.quantization.targets import target_of

SMALL = 1 << 12
"""Up to this many elements a weight is stacked with others."""

_Alike: TypeAlias = tuple[int, tuple[int, ...], torch.dtype, torch.device]
"""Identity of the step, shape, and the tensor's dtype and device."""

_FEW = 4
_AT_A_TIME = 1 << 20  # elements in one stack, so that it takes a few megabytes


def choose_together(
    run: QuantizationRun, bound_targets: Sequence[BoundTarget]
) -> dict[BoundTarget, Chosen]:
    """Choose the scales of small similar weights, as the specification does.

    Args:
        run: the stage.
        bound_targets: parameters and buffers of the stage.

    Returns:
        Nothing for weights that have to be looked at one at a time: large ones, those of which
        there are few, those with a range that nothing can be quantized with, and all of an
        algorithm that does more than to map the range of a weight.
    """
    found: dict[BoundTarget, Chosen] = {}
    if choose_of(run.algorithm) is not choose_qparams or _does_more(run):
        return found
    for stack in _stacks_of(run, bound_targets):
        try:
            found.update(_choose(run, stack))
        except CalibrationError:
            continue  # one at a time, the error names the weight
    return found


def _does_more(run: QuantizationRun) -> bool:
    is_solving = isinstance(run.algorithm, (SolvesWeights, Equalizes, CorrectsBias, Simulates))
    return is_solving or run.is_observing_modules


def _stacks_of(
    run: QuantizationRun, bound_targets: Sequence[BoundTarget]
) -> Iterator[Sequence[BoundTarget]]:
    alike: dict[_Alike, list[BoundTarget]] = {}
    for bound in bound_targets:
        shape = bound.plan.shape
        if shape is None or not 0 < math.prod(shape) <= SMALL:
            continue
        step, raw = run.quantize_step(bound), bound.raw
        is_numbered = isinstance(step.cut.fixed, Numbering)
        if step.grid.has_float_zero_point or step.grid.has_levels or raw.is_meta or is_numbered:
            continue
        # Equal targets share their step.
        alike.setdefault((id(step), shape, raw.dtype, raw.device), []).append(bound)
    for (_, shape, _, _), some in alike.items():
        if len(some) < _FEW:
            continue
        at_a_time = max(_AT_A_TIME // math.prod(shape), 1)
        for start in range(0, len(some), at_a_time):
            yield some[start : start + at_a_time]


def _choose(run: QuantizationRun, stack: Sequence[BoundTarget]) -> Mapping[BoundTarget, Chosen]:
    if any(type(run.observer(bound)) is not MinMax for bound in stack):
        return {}
    first = stack[0]
    step = run.quantize_step(first)
    values = all_values_of(stack)
    size = step.cut.size_of(values[0])
    with torch.no_grad():
        low, high = block_range(torch.stack(values), (1, *size))
        target = target_of(first, step.grid).evolve(blocks=Blocks((1, *size)))
        together = choose_qparams(low, high, target)
        if not bool(together.scale.isfinite().all()):
            return {}  # the width of a range overflows, which is told of the weight that has it
        is_centred = not bool(together.zero_point.any())
    is_whole = all(one == -1 for one in size)
    shape = () if is_whole else low.shape[1:]
    rows = (
        tensor.reshape(len(stack), *shape).unbind()
        for tensor in (together.scale, together.zero_point)
    )
    ranges = zip(low.unbind(), high.unbind(), strict=True)
    return {
        bound: Chosen(
            QParams(
                scale=scale,
                zero_point=zero_point,
                quant_min=together.quant_min,
                quant_max=together.quant_max,
                dtype=together.dtype,
                scheme=together.scheme,
                block_size=None if is_whole else size,
            ),
            range_,
            is_centred,
        )
        for bound, scale, zero_point, range_ in zip(stack, *rows, ranges, strict=True)
    }
