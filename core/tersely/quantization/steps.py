"""The step that quantizes each target, by what its algorithm can do."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tersely.contracts.quantized_forward import RoundsAtRandom
from tersely.contracts.quantizer import QuantizationTarget
from tersely.engine.observation.padding import is_channels_first
from tersely.engine.targets.binding import BoundTarget
from tersely.instrument.instruments import Transform
from tersely.instrument.names import QUANTIZE
from tersely.instrument.scales.by_algorithm import Dynamic, Learned, Simulated
from tersely.instrument.scales.in_force import LeastScale
from tersely.instrument.scales.moving_range import Follow
from tersely.instrument.scales.quantizing import Quantize
from tersely.instrument.scales.rounding_at_random import RoundAtRandom
from tersely.instrument.transforms import SharedPut
from tersely.quantization.accumulators import bias_step, least_scales
from tersely.quantization.factors.input_factors import place_factors
from tersely.quantization.run import QuantizationRun
from tersely.quantization.targets import target_of


def put_steps(run: QuantizationRun, bound_targets: Sequence[BoundTarget], *, steps: int) -> None:
    """Put in the steps that a stage takes with its targets at this time.

    Args:
        run: the stage, whose period has begun.
        bound_targets: all quantization targets of the session.
        steps: optimizer steps so far.
    """
    renew_steps(run, bound_targets, run.all_bound_targets, steps=steps)
    if run.is_equalizing:
        for bound in run.bound_targets:
            place_factors(bound_targets, bound)


def renew_steps(
    run: QuantizationRun,
    bound_targets: Sequence[BoundTarget],
    changed: Iterable[BoundTarget],
    *,
    steps: int,
) -> None:
    """Put in the steps that a stage takes with some of its targets at this time.

    Args:
        run: the stage, whose period has begun.
        bound_targets: all quantization targets of the session.
        changed: targets of the stage.
        steps: optimizer steps so far.
    """
    derived, least = set(run.derived), least_scales(bound_targets)
    putting = SharedPut(QUANTIZE)
    # Most targets share a plain step to which the algorithm adds nothing, as one of them shows.
    bare: set[int] = set()
    for bound in changed:
        plain = run.quantize_step(bound)
        if id(plain) in bare and not bound.others:
            putting.put(bound.module, bound.plan.target, plain)
            continue
        if not run.is_simulated(bound):
            continue
        for module, attribute in bound.owners:
            step = (
                bias_step(bound, bound_targets)
                if bound in derived
                else make_step(
                    run,
                    bound,
                    attribute,
                    steps=steps,
                    least=least.get(module) if attribute == "weight" else None,
                )
            )
            putting.put(module, attribute, step)
            if step is plain and not run.frozen:
                bare.add(id(plain))


def make_step(
    run: QuantizationRun,
    bound: BoundTarget,
    attribute: str,
    *,
    steps: int,
    least: LeastScale | None = None,
) -> Transform:
    """Return what quantizes a target, until something is learned for it.

    Args:
        run: the stage.
        bound: the target.
        attribute: its name in the module that the step is for.
        steps: optimizer steps so far.
        least: the smallest scales with which the bias of a weight's layer fits, or None.
    """
    plain = run.quantize_step(bound, attribute)
    if bound.is_activation and run.is_dynamic_as(plain):
        return Dynamic(run.algorithm, _seen(bound, plain), plain)
    simulating = run.simulating()
    if simulating is not None:
        return Simulated(simulating, _seen(bound, plain), plain)
    if run.learning is not None and bound not in run.frozen:
        return Learned(run.learning, _seen(bound, plain), plain)
    if isinstance(run.algorithm, RoundsAtRandom):
        plain = RoundAtRandom.of(plain, run.algorithm, _seen(bound, plain))
    follower = run.follows_training()
    if follower is None or bound in run.frozen:
        return plain
    elapsed = steps - run.stage.begin
    if follower.freeze_step is not None and elapsed >= follower.freeze_step:
        return plain
    is_quantizing = elapsed >= follower.start_step
    return Follow(
        run.algorithm,
        _seen(bound, plain),
        plain,
        follower.decay,
        is_quantizing,
        least,
        run.padding if bound.is_activation else None,
        is_channels_first(bound.plan.channel_dim, bound.module),
    )


def _seen(bound: BoundTarget, plain: Quantize) -> QuantizationTarget:
    # The size of an input or output comes with its values; only whether it is one block counts.
    size = (-1,) if plain.cut.kind == "tensor" else (1,)
    return target_of(bound, plain.grid, size=size)
