"""The step that quantizes each target, by what its algorithm can do."""

from __future__ import annotations

from collections.abc import Sequence

from tersely.contracts.quantizer import QuantizationTarget
from tersely.engine.binding import Handle
from tersely.instrument.in_force import LeastScale
from tersely.instrument.instruments import Transform
from tersely.instrument.moving_range import Follow
from tersely.instrument.names import QUANTIZE
from tersely.instrument.quantizing import Dynamic, Learned, Quantize, Simulated
from tersely.instrument.transforms import SharedPut
from tersely.quantization.accumulators import bias_step, least_scales
from tersely.quantization.placing import place_factors
from tersely.quantization.run import QuantizationRun
from tersely.quantization.targets import target_of


def put_steps(run: QuantizationRun, handles: Sequence[Handle], *, steps: int) -> None:
    """Put in the steps that a stage takes with its targets at this time.

    Args:
        run: the stage, whose period has begun.
        handles: all quantization targets of the session.
        steps: optimizer steps so far.
    """
    derived, least = set(run.derived), least_scales(handles)
    putting = SharedPut(QUANTIZE)
    for handle in run.all_handles:
        if not run.is_simulated(handle):
            continue
        for module, attribute in handle.owners:
            step = (
                bias_step(handle, handles)
                if handle in derived
                else make_step(
                    run,
                    handle,
                    attribute,
                    steps=steps,
                    least=least.get(module) if attribute == "weight" else None,
                )
            )
            putting.put(module, attribute, step)
    if run.is_equalizing:
        for handle in run.handles:
            place_factors(handles, handle)


def make_step(
    run: QuantizationRun,
    handle: Handle,
    attribute: str,
    *,
    steps: int,
    least: LeastScale | None = None,
) -> Transform:
    """Return what quantizes a target, until something is learned for it.

    Args:
        run: the stage.
        handle: the target.
        attribute: its name in the module that the step is for.
        steps: optimizer steps so far.
        least: the smallest scales that serve the bias beside a weight, or None.
    """
    plain = run.quantize_step(handle, attribute)
    if handle.is_activation and run.is_dynamic(handle):
        return Dynamic(run.algorithm, _seen(handle, plain), plain)
    simulating = run.simulating()
    if simulating is not None:
        return Simulated(simulating, _seen(handle, plain), plain)
    if run.learning is not None:
        return Learned(run.learning, _seen(handle, plain), plain)
    following = run.follows_training()
    if following is None:
        return plain
    elapsed = steps - run.stage.begin
    if following.freeze_step is not None and elapsed >= following.freeze_step:
        return plain
    is_quantizing = elapsed >= following.start_step
    seen = _seen(handle, plain)
    return Follow(run.algorithm, seen, plain, following.decay, is_quantizing, least)


def _seen(handle: Handle, plain: Quantize) -> QuantizationTarget:
    # The size of an input or output comes with its values; only whether it is one block counts.
    size = (-1,) if plain.cut.kind == "tensor" else (1,)
    return target_of(handle, plain.grid, size=size)
