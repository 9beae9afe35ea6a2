"""Finalizing: what forward computes with is written into the parameters, and what cannot be."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import attrs
import torch
from torch import Tensor, nn

from tersely.engine.binding import Handle, like_raw
from tersely.instrument.attaching import replace_class
from tersely.instrument.classes import (
    instrumented_class,
    instruments_of,
    replace_instruments,
)
from tersely.instrument.folding import Fold
from tersely.instrument.input_scales import ScaleInput, ScaleWeight
from tersely.instrument.instruments import Instruments
from tersely.instrument.masks import ParameterMask
from tersely.instrument.moving_range import Follow
from tersely.instrument.names import PREFIX, QUANTIZE, UNSCALE, learned_buffer
from tersely.instrument.quantizing import Learned
from tersely.instrument.transforms import chain_of, processed, put
from tersely.planning.classes import ORIGINAL
from tersely.pruning.mask_buffers import mask_of
from tersely.quantization.folds import fold_for_good, write_folded
from tersely.quantization.placing import write_qparams


class FinalizeWarning(UserWarning):
    """A finished model still carries instruments, because they have no plain equivalent."""


def bake(handles: Sequence[Handle], model: nn.Module, folds: Mapping[nn.Module, Fold]) -> None:
    """Write what forward uses into every parameter and buffer, in place.

    Args:
        handles: all targets of a session.
        model: the session's model.
        folds: the layers that something is folded into.
    """
    folded = {layer: _folded_values(layer) for layer, fold in folds.items() if fold.norm}
    done: set[int] = set()
    for handle in handles:
        if handle.is_activation or handle.module in folded or id(handle.raw) in done:
            continue
        done.add(id(handle.raw))
        _bake_one(handle)
    for layer, values in folded.items():
        write_folded(layer, values)
        fold_for_good(model, layer, folds[layer])


def _folded_values(layer: nn.Module) -> dict[str, Tensor | None]:
    found: dict[str, Tensor | None] = {}
    with torch.no_grad():
        for name in ("weight", "bias"):
            steps = chain_of(layer, name)
            raw = layer._parameters.get(name)
            if raw is not None:
                found[name] = processed(layer, name, raw)
            else:
                found[name] = steps[0].of_nothing(layer)  # type: ignore[attr-defined]  # a fold's
    return found


def _bake_one(handle: Handle) -> None:
    steps = chain_of(handle.module, handle.plan.target)
    with torch.no_grad():
        if len(steps) == 1 and isinstance(steps[0], ParameterMask):
            mask, raw = mask_of(handle), handle.raw
            if mask is not None and handle.is_additive:
                raw.add_(like_raw(mask, raw))
            elif mask is not None:
                raw.mul_(like_raw(mask, raw))
            return
        dense = handle.dense()
        value = processed(handle.module, handle.plan.target, dense)
        scaled = [step for step in steps if isinstance(step, ScaleWeight)]
        if scaled and not any(step.is_inverse for step in scaled):
            # The input divides by these factors, and a plain input of this class would not.
            value = attrs.evolve(scaled[0], is_inverse=True)(handle.module, value)
        if value is not dense:
            handle.write(value)


def keep_activations(handles: Sequence[Handle]) -> dict[nn.Module, list[Handle]]:
    """Reduce modules whose inputs or outputs are processed to exactly that.

    Args:
        handles: all targets of a session.

    Returns:
        The modules that stay instrumented, each with the targets it stays for.
    """
    staying: dict[nn.Module, list[Handle]] = {}
    for handle in handles:
        if handle.is_activation and _is_processed(handle):
            staying.setdefault(handle.module, []).append(handle)
    followers: dict[nn.Module, list[Handle]] = {}
    for module, targets in staying.items():
        for handle in targets:
            _settle(handle)
            _give_back_size(handle)
        _reduce(module)
        fold = instruments_of(module).fold
        if isinstance(fold, Fold) and fold.activation is not None:
            # The output is quantized after its ReLU, so the ReLU stays inside of the layer.
            replace_instruments(module, attrs.evolve(instruments_of(module), fold=_relu_of(fold)))
            followers[fold.activation] = []
            _reduce(fold.activation)
    return {**staying, **followers}


def _is_processed(handle: Handle) -> bool:
    if handle.plan.method == "pruning":
        return mask_of(handle) is not None
    return any(step.place == QUANTIZE for step in chain_of(handle.module, handle.plan.target))


def _relu_of(fold: Fold) -> Fold:
    return Fold(None, fold.activation)


def _give_back_size(handle: Handle) -> None:
    """Multiply an input by the factors it was divided by, which its weight no longer has."""
    for step in chain_of(handle.module, handle.plan.target):
        if isinstance(step, ScaleInput) and not step.is_inverse:
            back = attrs.evolve(step, is_inverse=True)
            put(handle.module, handle.plan.target, (back,), place=UNSCALE)


def _settle(handle: Handle) -> None:
    """Replace what moves in training by what is in force now."""
    for step in chain_of(handle.module, handle.plan.target):
        if isinstance(step, Learned):
            found = step.meaning(handle.module)
            if found is not None:
                write_qparams(handle, found)
            for name in step.learned(handle.module):
                del handle.module._buffers[learned_buffer(handle.plan.target, name)]
            put(handle.module, handle.plan.target, (step.inner,), place=QUANTIZE)
        elif isinstance(step, Follow):
            put(handle.module, handle.plan.target, (step.inner,), place=QUANTIZE)


def _reduce(module: nn.Module) -> None:
    instruments = instruments_of(module)
    needed = _input_factors(instruments)
    for attribute in instruments.parameters:
        start = f"{PREFIX}{attribute}_"
        for name in [name for name in module._buffers if name.startswith(start)]:
            if name not in needed:
                del module._buffers[name]
    replace_instruments(module, attrs.evolve(instruments, parameters={}))
    current = type(module)
    reduced = instrumented_class(getattr(current, ORIGINAL), frozenset(), has_sites=True)
    module.__class__ = replace_class(current, reduced)


def _input_factors(instruments: Instruments) -> set[str]:
    return {
        step.buffer
        for steps in instruments.inputs.values()
        for step in steps
        if isinstance(step, ScaleInput)
    }


def warn_of_staying(staying: Mapping[nn.Module, Sequence[Handle]]) -> None:
    """Say which modules are not plain after all.

    Args:
        staying: what `keep_activations` returned.
    """
    if staying:
        names = ", ".join(handle.plan.name for handles in staying.values() for handle in handles)
        warnings.warn(
            f"a plain module cannot mask or quantize its inputs or outputs, so these stay "
            f"instrumented after finalize(): {names}",
            FinalizeWarning,
            stacklevel=3,
        )
