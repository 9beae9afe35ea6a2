"""Scale and zero point in force for one target, with the blocks that they belong to."""

from __future__ import annotations

from collections.abc import Mapping

from tersely.arithmetic.qparams import QParams
from tersely.engine.targets.binding import BoundTarget
from tersely.instrument.scales.in_force import qparams_of as simulated_qparams
from tersely.quantization.ranges import Seen
from tersely.quantization.returned_values import check_qparams
from tersely.quantization.run import QuantizationRun
from tersely.quantization.scale_buffers import read_buffer
from tersely.quantization.targets import target_of


def qparams_of(
    run: QuantizationRun, bound: BoundTarget, seen: Mapping[BoundTarget, Seen]
) -> QParams | None:
    """Return the parameters in force for one target, or None.

    Args:
        run: its stage.
        bound: the target.
        seen: what calibration saw of inputs and outputs.

    Raises:
        PluginError: what is learned means no parameters of the target.
    """
    qparams = simulated_qparams(bound.module, bound.plan.target)
    if qparams is None and not run.is_simulated(bound):
        qparams = run.quantize_step(bound).qparams(bound.module)
    if qparams is not None and run.learned(bound):
        target = target_of(bound, run.grid(bound))
        qparams = check_qparams(qparams, target, qparams.scale.shape, what=" in meaning()")
    if qparams is None or not bound.is_activation or qparams.scale.ndim == 0:
        return qparams
    size = read_buffer(bound, "size")
    if size is not None:
        return qparams.evolve(block_size=tuple(size.tolist()))
    one = seen.get(bound)
    if one is not None and one.blocks and len(one.blocks) == qparams.scale.ndim:
        return qparams.evolve(block_size=one.blocks)
    return qparams.evolve(block_size=tuple(-1 if n == 1 else 1 for n in qparams.scale.shape))
