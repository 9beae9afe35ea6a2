"""Finds, instruments and permanently folds the modules that quantization stages fold (rule Q4)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import attrs
import torch
from torch import Tensor, nn

from tersely.document.recipe import Stage
from tersely.engine.targets.binding import Binding
from tersely.errors import AttachError
from tersely.instrument.folding import NORMS, Fold, FoldBias, FoldWeight
from tersely.instrument.instruments import Instruments
from tersely.instrument.modules.classes import instruments_of, replace_instruments
from tersely.instrument.names import FOLD
from tersely.instrument.transforms import put


def folds_of(binding: Binding) -> Iterator[tuple[Stage, nn.Module, Fold]]:
    """Yield every layer that something is folded into, with what it is and by which stage.

    Args:
        binding: a plan bound to a model.

    Raises:
        AttachError: a batch norm keeps no running statistics.
    """
    universe = binding.owners.universe
    for stage in binding.plan.recipe.stages:
        for names in stage.folded:
            layer, *rest = (universe.modules[universe.index[name]] for name in names)
            norm = next((one for one in rest if isinstance(one, NORMS)), None)
            activation = next((one for one in rest if not isinstance(one, NORMS)), None)
            if norm is not None and norm.running_var is None:
                raise AttachError(
                    f"{names[1]!r} keeps no running statistics, so it cannot be folded into "
                    f"{names[0]!r}; leave it out of fuse_names",
                    target=names[1],
                    path=stage.path,
                    algorithm=stage.algorithm,
                )
            yield stage, layer, Fold(norm, activation)


def with_folds(
    wanted: Mapping[nn.Module, Instruments], binding: Binding
) -> dict[nn.Module, Instruments]:
    """Return instruments with the folding of modules added, or with room for it.

    Args:
        wanted: what each module does without folding.
        binding: a plan bound to a model.
    """
    found = dict(wanted)
    for stage, layer, fold in folds_of(binding):
        for module in fold_members(layer, fold):
            found[module] = attrs.evolve(found.get(module, Instruments()), has_room=True)
        if fold.norm is not None:
            room = {name: found[layer].parameters.get(name, ()) for name in ("weight", "bias")}
            parameters = {**found[layer].parameters, **room}
            found[layer] = attrs.evolve(found[layer], parameters=parameters)
        if not stage.begin:
            found.update(_folded(found, layer, fold))
    return found


def begin_folds(binding: Binding, stage: Stage) -> None:
    """Fold what a stage folds that begins after the session was attached.

    Args:
        binding: a plan bound to a model.
        stage: the stage.
    """
    if not stage.begin:
        return
    for other, layer, fold in folds_of(binding):
        if other is stage:
            current = {module: instruments_of(module) for module in fold_members(layer, fold)}
            for module, instruments in _folded(current, layer, fold).items():
                replace_instruments(module, instruments)


def fold_members(layer: nn.Module, fold: Fold) -> list[nn.Module]:
    """Return the modules that are one while they are folded, the layer first.

    Args:
        layer: the layer.
        fold: what is folded into it.
    """
    return [module for module in (layer, fold.norm, fold.activation) if module is not None]


def _folded(
    instruments: Mapping[nn.Module, Instruments], layer: nn.Module, fold: Fold
) -> dict[nn.Module, Instruments]:
    own = instruments[layer]
    parameters = dict(own.parameters)
    if fold.norm is not None:
        for name, step in (("weight", FoldWeight(fold)), ("bias", FoldBias(fold))):
            before = [one for one in parameters[name] if one.place < FOLD]
            after = [one for one in parameters[name] if one.place > FOLD]
            parameters[name] = (*before, step, *after)
    found = {
        module: attrs.evolve(instruments[module], is_folded=True)
        for module in fold_members(layer, fold)[1:]
    }
    return {layer: attrs.evolve(own, parameters=parameters, fold=fold), **found}


def fold_for_good(layer: nn.Module, fold: Fold, values: Mapping[str, Tensor | None]) -> None:
    """Write folded values into a layer, and leave a batch norm that adds at most a bias.

    Both keep their class and the names of their state, so that files of the finished model load
    in the class of the model.

    Args:
        layer: the layer.
        fold: what is folded into it, a batch norm among it.
        values: its weight and bias as forward uses them.
    """
    norm = fold.norm
    for name in ("weight", "bias"):
        put(layer, name, (), place=FOLD)
    with torch.no_grad():
        for name, value in values.items():
            raw = layer._parameters.get(name)
            if value is not None and raw is not None:
                raw.copy_(value)
        bias = values.get("bias") if layer._parameters.get("bias") is None else None
        norm.running_mean.zero_()
        norm.running_var.fill_(1 - norm.eps)
        if norm.weight is not None:
            norm.weight.fill_(1)
            norm.bias.zero_()
        if bias is not None and norm.bias is not None:
            norm.bias.copy_(bias)
        elif bias is not None:
            norm.running_mean.copy_(-bias)


def carried_bias(norm: nn.Module) -> Tensor:
    """Return the bias that the batch norm of a finished layer adds.

    Args:
        norm: a batch norm that `fold_for_good` left.
    """
    bias, mean = norm._parameters.get("bias"), norm._buffers["running_mean"]
    assert mean is not None  # a norm without statistics is never folded
    return (-mean if bias is None else bias - mean).detach().clone()
