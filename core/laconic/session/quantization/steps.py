"""The step that quantizes each target, by what its algorithm can do."""

from __future__ import annotations

from collections.abc import Sequence

from laconic.instrument.following import Follow
from laconic.instrument.in_force import QuantizeBias
from laconic.instrument.instruments import Transform
from laconic.instrument.quantizing import Dynamic, Learned, Simulated
from laconic.quantizer_abilities import LearnsScales
from laconic.session.handles import Handle
from laconic.session.quantization.placing import input_of
from laconic.session.quantization.runs import QuantizationRun
from laconic.session.quantization.targets import target_of


def make_step(run: QuantizationRun, handle: Handle, attribute: str, *, steps: int) -> Transform:
    """Return what quantizes a target, until something is learned for it.

    Args:
        run: the stage.
        handle: the target.
        attribute: its name in the module that the step is for.
        steps: optimizer steps so far.
    """
    plain = run.quantize_step(handle, attribute)
    # The size of an input or output comes with its values; only whether it is one block counts.
    size = (-1,) if plain.cut.kind == "tensor" else (1,)
    tensor = target_of(handle, plain.grid, size=size)
    if handle.is_activation and run.is_dynamic(handle):
        return Dynamic(run.quantizer, tensor, plain)
    simulating = run.simulating()
    if simulating is not None:
        return Simulated(simulating, tensor, plain)
    if isinstance(run.quantizer, LearnsScales):
        return Learned(run.quantizer, tensor, plain)
    following = run.following()
    if following is None:
        return plain
    if following.freeze_step is not None and steps >= following.freeze_step:
        return plain
    is_quantizing = steps >= following.start_step
    return Follow(run.quantizer, tensor, plain, following.decay, is_quantizing)


def make_bias_step(run: QuantizationRun, handle: Handle, handles: Sequence[Handle]) -> QuantizeBias:
    """Return what quantizes a bias in the terms of its accumulator.

    Args:
        run: the stage.
        handle: the bias.
        handles: all quantization targets, among which its module's first input is.
    """
    source = input_of(handles, handle.module)
    return QuantizeBias(handle.plan.target, source or "", "weight", run.grid(handle))
