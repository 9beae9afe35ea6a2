"""Finalizing: writes what forward computes with into parameters, and keeps the rest as it is."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import attrs
import torch
from torch import Tensor, nn

from tersely.engine.targets.binding import BoundTarget, like_raw
from tersely.instrument.folding import Fold
from tersely.instrument.instruments import Instruments, Transform
from tersely.instrument.masks.mask_transforms import ParameterMask
from tersely.instrument.modules.attaching import replace_class
from tersely.instrument.modules.classes import (
    instrumented_class,
    instruments_of,
    replace_instruments,
)
from tersely.instrument.names import LAYOUT, PREFIX, QUANTIZE, SCALE, UNSCALE, learned_buffer
from tersely.instrument.scales.by_algorithm import Learned
from tersely.instrument.scales.input_scales import ScaleChannels
from tersely.instrument.scales.moving_range import Follow
from tersely.instrument.scales.rounding_at_random import RoundAtRandom
from tersely.instrument.transforms import chain_of, processed, put
from tersely.planning.selecting.classes import ORIGINAL
from tersely.pruning.mask_buffers import mask_of
from tersely.quantization.factors.folding import Folding
from tersely.quantization.folds import fold_for_good
from tersely.quantization.scale_buffers import write_qparams
from tersely.reporting.printing.folded_names import fold_names


class FinalizeWarning(UserWarning):
    """A finished model still carries instruments, because they have no plain equivalent."""


def bake(
    bound_targets: Sequence[BoundTarget],
    folds: Mapping[nn.Module, Fold],
    *,
    foldings: Sequence[Folding] = (),
) -> None:
    """Write what forward uses into every parameter and buffer, in place.

    Args:
        bound_targets: all targets of a session.
        folds: the layers that something is folded into.
        foldings: factors that weights keep, because they are folded into what produces their input.
    """
    _keep_factors(foldings)
    folded = {layer: _folded_values(layer) for layer, fold in folds.items() if fold.norm}
    done: set[int] = set()
    for bound in bound_targets:
        if bound.is_activation or bound.module in folded or id(bound.raw) in done:
            continue
        done.add(id(bound.raw))
        _bake_one(bound)
    for layer, values in folded.items():
        fold_for_good(layer, folds[layer], values)


def _keep_factors(foldings: Sequence[Folding]) -> None:
    """Let weights stay multiplied by their factors, and their inputs come divided already."""
    for bound in [bound for one in foldings for bound in one.targets]:
        put(bound.module, bound.plan.target, (), place=UNSCALE)
        scaled = chain_of(bound.module, bound.plan.target)
        buffers = {step.buffer for step in scaled if isinstance(step, ScaleChannels)}
        for site, steps in instruments_of(bound.module).inputs.items():
            if any(isinstance(step, ScaleChannels) and step.buffer in buffers for step in steps):
                put(bound.module, site.target, (), place=SCALE)


def _folded_values(layer: nn.Module) -> dict[str, Tensor | None]:
    found: dict[str, Tensor | None] = {}
    with torch.no_grad():
        for name in ("weight", "bias"):
            steps = chain_of(layer, name)
            raw = layer._parameters.get(name)
            if raw is not None:
                found[name] = _undivided(layer, steps, processed(layer, name, raw))
            else:
                found[name] = steps[0].of_nothing(layer)  # type: ignore[attr-defined]  # a fold's
    return found


def _bake_one(bound: BoundTarget) -> None:
    steps = chain_of(bound.module, bound.plan.target)
    with torch.no_grad():
        if len(steps) == 1 and isinstance(steps[0], ParameterMask):
            mask, raw = mask_of(bound), bound.raw
            if mask is not None and bound.is_additive:
                raw.add_(like_raw(mask, raw))
            elif mask is not None:
                raw.mul_(like_raw(mask, raw))
            return
        dense = bound.dense()
        value = processed(bound.module, bound.plan.target, dense)
        value = _undivided(bound.module, steps, value)
        if value is not dense:
            bound.write(value)


def _undivided(module: nn.Module, steps: Sequence[Transform], value: Tensor) -> Tensor:
    """Return a parameter for inputs that are not divided by factors, as its class has them."""
    scaled = [step for step in steps if isinstance(step, ScaleChannels)]
    return scaled[0].undone()(module, value) if _is_input_scaled(module, scaled) else value


def _is_input_scaled(module: nn.Module, scaled: Sequence[ScaleChannels]) -> bool:
    buffers = {step.buffer for step in scaled}
    return any(
        isinstance(step, ScaleChannels) and step.buffer in buffers
        for steps in instruments_of(module).inputs.values()
        for step in steps
    )


def keep_activations(bound_targets: Sequence[BoundTarget]) -> dict[nn.Module, list[BoundTarget]]:
    """Reduce modules whose inputs or outputs are processed to exactly that.

    Args:
        bound_targets: all targets of a session.

    Returns:
        The modules that stay instrumented, each with the targets it stays for.
    """
    staying: dict[nn.Module, list[BoundTarget]] = {}
    for bound in bound_targets:
        if bound.is_activation and _is_processed(bound):
            staying.setdefault(bound.module, []).append(bound)
    followers: dict[nn.Module, list[BoundTarget]] = {}
    for module, targets in staying.items():
        for bound in targets:
            _settle(bound)
            _give_back_size(bound)
        _reduce(module)
        instruments = instruments_of(module)
        if isinstance(instruments.fold, Fold):
            # An output is quantized after what follows the layer, which stays inside of it then.
            inside = instruments.fold.settled() if instruments.outputs else None
            replace_instruments(module, attrs.evolve(instruments, fold=inside))
            for follower in (inside.norm, inside.activation) if inside is not None else ():
                if follower is not None:
                    followers[follower] = []
                    _reduce(follower)
    for module in staying:
        _keep_out_of_files(module)
    return {**staying, **followers}


def _keep_out_of_files(module: nn.Module) -> None:
    """Leave only names that its class knows in a finished model's state."""
    module._non_persistent_buffers_set.update(
        name for name in module._buffers if name.startswith(PREFIX)
    )


def _is_processed(bound: BoundTarget) -> bool:
    if bound.plan.method == "pruning":
        return mask_of(bound) is not None
    return any(step.place == QUANTIZE for step in chain_of(bound.module, bound.plan.target))


def _give_back_size(bound: BoundTarget) -> None:
    """Multiply an input by the factors that it was divided by, which its weight no longer has."""
    for step in chain_of(bound.module, bound.plan.target):
        if isinstance(step, ScaleChannels) and step.place == SCALE:
            put(bound.module, bound.plan.target, (step.undone(),), place=UNSCALE)


def _settle(bound: BoundTarget) -> None:
    """Replace what training moves by its current value."""
    for step in chain_of(bound.module, bound.plan.target):
        if isinstance(step, Learned):
            found = step.meaning(bound.module)
            if found is not None:
                write_qparams(bound, found)
            for name in step.learned(bound.module):
                del bound.module._buffers[learned_buffer(bound.plan.target, name)]
            put(bound.module, bound.plan.target, (step.inner,), place=QUANTIZE)
        elif isinstance(step, (Follow, RoundAtRandom)):
            inner = step.inner
            inner = inner.inner if isinstance(inner, RoundAtRandom) else inner
            put(bound.module, bound.plan.target, (inner,), place=QUANTIZE)


def _reduce(module: nn.Module) -> None:
    instruments = instruments_of(module)
    needed = _input_factors(instruments)
    module._buffers.pop(LAYOUT, None)
    for attribute in instruments.parameters:
        start = f"{PREFIX}{attribute}_"
        for name in [name for name in module._buffers if name.startswith(start)]:
            if name not in needed:
                del module._buffers[name]
    replace_instruments(module, attrs.evolve(instruments, parameters={}, padding=None))
    current = type(module)
    reduced = instrumented_class(getattr(current, ORIGINAL), frozenset(), has_sites=True)
    module.__class__ = replace_class(current, reduced)


def _input_factors(instruments: Instruments) -> set[str]:
    return {
        step.buffer
        for steps in instruments.inputs.values()
        for step in steps
        if isinstance(step, ScaleChannels)
    }


def warn_of_staying(staying: Mapping[nn.Module, Sequence[BoundTarget]]) -> None:
    """Warn of the modules that stay instrumented.

    Args:
        staying: what `keep_activations` returned.
    """
    if staying:
        bound = (one for bound_targets in staying.values() for one in bound_targets)
        names = ", ".join(fold_names(one.plan.name for one in bound))
        warnings.warn(
            "a plain module cannot mask or quantize its inputs or outputs, so these stay "
            f"instrumented after finalize(): {names}",
            FinalizeWarning,
            stacklevel=3,
        )
