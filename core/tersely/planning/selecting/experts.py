"""Experts that share parameters, recognized by the shape of a module without a template."""

from __future__ import annotations

from torch import Tensor, nn

from tersely.contracts.quantized_weights import Equalizes
from tersely.contracts.quantizer import MergesObservations
from tersely.contracts.target_plan import TargetPlan
from tersely.document.recipe import Stage
from tersely.planning.selecting.classes import original_class
from tersely.planning.stages.algorithms import is_declared
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
        Name -> parameter of shape (experts, ...); empty for any other module.
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


def _is_transposed(module: nn.Module, weights: dict[str, Tensor]) -> bool:
    stated = getattr(module, "is_transposed", None)
    if isinstance(stated, bool):
        return stated
    # The last one takes in what the first one returns, perhaps gated, and the other way round.
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
    is_merging = is_declared(MergesObservations, implementation, info)
    if is_merging and is_declared(Equalizes, implementation, info):
        raise ValueError(
            f"{info.name} makes the inputs of a weight easier to quantize, and experts of one "
            "parameter have no inputs of their own to quantize: they read one tensor, or what is "
            "inside the module; write algorithm: awq, or gptq"
        )
    if is_merging:
        raise ValueError(
            f"{info.name} keeps what cannot be added up of the inputs of a module, which is not "
            "kept for single experts; write another algorithm"
        )
