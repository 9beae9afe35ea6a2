"""Experts that share their parameters, told by the shape of a module whose type has no template."""

from __future__ import annotations

import math

from torch import Tensor, nn

from tersely.contracts.abilities import ObservesOutputs
from tersely.contracts.quantizer import Equalizes, MergesObservations
from tersely.contracts.target_plan import TargetPlan
from tersely.document.recipe import Stage
from tersely.planning.algorithms import is_declared
from tersely.planning.classes import original_class
from tersely.planning.draft import Draft, and_more
from tersely.planning.plan import Plan
from tersely.registry.descriptors import ModuleSetting, PrunerInfo, QuantizerInfo
from tersely.registry.experts import experts_setting
from tersely.registry.registry import registry

_MATRICES = 3
_COUNTS = ("num_experts", "num_local_experts", "n_experts")


def stacked_weights(module: nn.Module) -> dict[str, Tensor]:
    """Return a module's own parameters that stack one matrix for each expert (rule G5.4).

    Args:
        module: any module.

    Returns:
        Name -> parameter of shape (experts, ...); empty for a module that is no such thing.
    """
    found: dict[str, Tensor] = {
        name: tensor
        for name, tensor in module._parameters.items()
        if tensor is not None and tensor.ndim == _MATRICES and tensor.is_floating_point()
    }
    counts = {tensor.shape[0] for tensor in found.values()}
    is_named = original_class(type(module)).__name__.endswith("Experts")
    stated = [getattr(module, name, None) for name in _COUNTS]
    is_counted = len(counts) == 1 and bool(counts & {one for one in stated if type(one) is int})
    return found if is_named or is_counted else {}


def inferred_setting(module: nn.Module) -> ModuleSetting | None:
    """Return the module setting of experts whose type has none, or None for other modules.

    Args:
        module: any module.
    """
    weights = stacked_weights(module)
    if not weights:
        return None
    name = original_class(type(module)).__name__
    return experts_setting(name, tuple(weights), transposed=_is_transposed(module, weights))


def hint_at_experts(plan: Plan, draft: Draft) -> None:
    """Hint at experts in one parameter where most of a model's parameters are left out (S4.4).

    Args:
        plan: the plan.
        draft: where hints are collected.
    """
    compressed = [
        one
        for one in plan.targets
        if one.kind == "parameter" and one.method in ("pruning", "quantization")
    ]
    if not compressed:
        return
    universe = draft.universe
    planned = {id(universe.modules[universe.index[one.module]]) for one in compressed}
    found: dict[int, tuple[str, int]] = {}
    for name, module in zip(universe.names, universe.modules, strict=True):
        if id(module) not in planned and (weights := stacked_weights(module)):
            size = sum(weight.numel() for weight in weights.values())
            found.setdefault(id(module), (name, size))
    if not found:
        return
    everything = {id(one): one.numel() for one in universe.modules[0].parameters()}
    total = sum(everything.values())
    untouched = total - sum(math.prod(one.shape or ()) for one in compressed)
    if 2 * untouched > total:
        names = [name for name, _ in found.values()]
        share = sum(size for _, size in found.values()) / max(total, 1)
        kinds = {original_class(type(universe.modules[universe.index[name]])) for name in names}
        types = ", ".join(sorted(repr(one.__name__) for one in kinds))
        draft.hints.append(
            f"{names[0]!r}{and_more(len(names) - 1)}: {share:.0%} of the model's parameters are "
            f"those of experts in one parameter, which no entry selects; write op_types: [{types}] "
            f"to compress them"
        )


def _is_transposed(module: nn.Module, weights: dict[str, Tensor]) -> bool:
    stated = getattr(module, "is_transposed", None)
    if isinstance(stated, bool):
        return stated
    # What the first one puts out, perhaps gated, the last one takes in, and the other way round.
    first, *_, last = (*weights.values(), *weights.values())
    is_plain = first.shape[2] == last.shape[1]
    return not is_plain and first.shape[1] == last.shape[2]


def refuse_experts(target: TargetPlan, stage: Stage, info: PrunerInfo | QuantizerInfo) -> None:
    """Refuse algorithms whose observations or factors single experts cannot have.

    Args:
        target: a parameter that stacks a tensor for each expert.
        stage: its stage.
        info: the stage's algorithm.

    Raises:
        ValueError: the algorithm cannot be used on it; the text says what to write instead.
    """
    if len(target.shape or ()) < _MATRICES:
        return  # biases are neither ranked by inputs nor equalized
    catalog = registry().pruners if target.method == "pruning" else registry().quantizers
    implementation = catalog[stage.algorithm]
    if is_declared(Equalizes, implementation, info):
        raise ValueError(
            f"{info.name} multiplies the inputs of a weight by factors, and all experts of one "
            f"parameter read the same input; write algorithm: gptq, or rtn"
        )
    if is_declared(ObservesOutputs, implementation, info):
        raise ValueError(
            f"{info.name} ranks by the outputs of a module, and single experts of one parameter "
            f"have none; write algorithm: wanda, or l1_norm"
        )
    if is_declared(MergesObservations, implementation, info):
        raise ValueError(
            f"{info.name} keeps what cannot be added up of the inputs of a module, which is not "
            f"kept for single experts; write another algorithm"
        )
