"""Experts that share parameters, recognized by the shape of a module without a template."""

from __future__ import annotations

from torch import Tensor, nn

from tersely.planning.selecting.classes import original_class
from tersely.registry.descriptors import ModuleSetting
from tersely.registry.experts import experts_setting

_MATRICES = 3
_COUNTS = ("num_experts", "num_local_experts", "n_experts")


def stacked_weights(module: nn.Module) -> dict[str, Tensor]:
    """Return a module's own parameters that stack one matrix for each expert (rule T2.6).

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
