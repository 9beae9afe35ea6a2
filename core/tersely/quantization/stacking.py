"""Small weights of one kind, whose scales are chosen together: a call costs more than its result.

One tensor with a row per weight, each of its blocks within a row, has the ranges and the scales of
the weights one after the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import torch

from tersely.arithmetic.blocks import Blocks
from tersely.arithmetic.numbered import Numbering
from tersely.arithmetic.ranges import MinMax, block_range
from tersely.arithmetic.scales import choose_qparams
from tersely.contracts.quantized_forward import Simulates
from tersely.contracts.quantized_weights import CorrectsBias, Equalizes, SolvesWeights
from tersely.contracts.quantizer import choose_of
from tersely.engine.targets.binding import BoundTarget
from tersely.engine.targets.stacks import FEW, kinds_of, portions_of
from tersely.errors import CalibrationError
from tersely.quantization.chosen import Chosen
from tersely.quantization.ranges import all_values_of
from tersely.quantization.run import QuantizationRun
from tersely.quantization.targets import target_of


def choose_together(run: QuantizationRun, bound_targets: Sequence[BoundTarget]) -> list[Chosen]:
    """Choose the scales of small similar weights, as the specification does.

    Args:
        run: the stage.
        bound_targets: parameters and buffers of the stage.

    Returns:
        Nothing for weights that have to be looked at one at a time: large ones, those of which
        there are few, those with a range that nothing can be quantized with, and all of an
        algorithm that does more than to map the range of a weight.
    """
    found: list[Chosen] = []
    if choose_of(run.algorithm) is not choose_qparams or _does_more(run):
        return found
    for some in _alike(run, bound_targets):
        raws = [bound.raw for bound in some]
        for positions in kinds_of(raws)[0]:
            if len(positions) < FEW:
                continue
            for members in portions_of(positions, raws[positions[0]].numel()):
                # One at a time, the error names the weight.
                with suppress(CalibrationError):
                    chosen = _choose(run, [some[position] for position in members])
                    found += [] if chosen is None else [chosen]
    return found


def _does_more(run: QuantizationRun) -> bool:
    is_solving = isinstance(run.algorithm, (SolvesWeights, Equalizes, CorrectsBias, Simulates))
    return is_solving or run.is_observing_modules


def _alike(
    run: QuantizationRun, bound_targets: Sequence[BoundTarget]
) -> list[Sequence[BoundTarget]]:
    alike: dict[int, list[BoundTarget]] = {}
    for bound in bound_targets:
        # Equal targets share their step.
        alike.setdefault(id(run.quantize_step(bound)), []).append(bound)
    found: list[Sequence[BoundTarget]] = []
    for some in alike.values():
        step = run.quantize_step(some[0])
        is_numbered = isinstance(step.cut.fixed, Numbering)
        if step.grid.has_float_zero_point or step.grid.has_levels or is_numbered:
            continue
        if not run.has_own_observers or all(type(run.observer(one)) is MinMax for one in some):
            found.append(some)
    return found


@torch.no_grad()
def _choose(run: QuantizationRun, bound_targets: Sequence[BoundTarget]) -> Chosen | None:
    values = torch.stack(all_values_of(bound_targets))
    first = bound_targets[0]
    step = run.quantize_step(first)
    size = step.cut.size_of(values[0])
    low, high = block_range(values, (1, *size))
    target = target_of(first, step.grid).evolve(blocks=Blocks((1, *size)))
    together = choose_qparams(low, high, target)
    if not bool(together.scale.isfinite().all()):
        return None  # the width of a range overflows: asked alone, its weight is named
    is_whole = all(one == -1 for one in size)
    shape = (len(values), *(() if is_whole else low.shape[1:]))
    scale, zero_point, low, high = (
        one.reshape(shape) for one in (together.scale, together.zero_point, low, high)
    )
    qparams = together.evolve(
        scale=scale, zero_point=zero_point, block_size=None if is_whole else size
    )
    return Chosen(bound_targets, qparams, low, high)
