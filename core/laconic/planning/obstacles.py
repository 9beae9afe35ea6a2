"""Why a parameter or buffer cannot be a target, or is not there, in words that help."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

from laconic.document.suggest import nearest
from laconic.planning.classes import original_class


def obstacle(module: nn.Module, target: str, tensor: Tensor) -> str | None:
    """Return why a parameter or buffer cannot be compressed, or None when it can.

    Args:
        module: the module that owns it.
        target: its name.
        tensor: the tensor found under that name.
    """
    if type(tensor) is nn.Parameter and tensor.is_floating_point():
        return None  # by far the most frequent case, and this is asked for every target
    if is_lazy(tensor):
        return "it has no shape yet; run one batch through the model first"
    if not tensor.is_floating_point():
        return f"it has dtype {tensor.dtype}; only floating-point tensors can be compressed"
    if target in _STATISTICS and getattr(module, "track_running_stats", False):
        return (
            "it is a running statistic, which forward updates in place, so a mask or rounding "
            "would be lost in training; compress weight and bias instead"
        )
    return None


_STATISTICS = ("running_mean", "running_var")


def absence(module: nn.Module, target: str) -> str:
    """Return why a module has no parameter or buffer of a name, and what to write instead.

    Args:
        module: the module that was asked.
        target: the name that it does not have.
    """
    if parametrize.is_parametrized(module, target):
        return (
            "it is parametrized by torch.nn.utils.parametrize; call "
            "torch.nn.utils.parametrize.remove_parametrizations first"
        )
    if f"{target}_orig" in module._parameters:
        return "it is held by torch.nn.utils.prune; call torch.nn.utils.prune.remove first"
    if f"{target}_g" in module._parameters:
        return "it is held by weight_norm; call torch.nn.utils.remove_weight_norm first"
    names = [*module._parameters, *module._buffers]
    near = nearest(target, [*names, "_input_", "_output_"])
    hint = f"; did you mean {near[0]!r}?" if near else ""
    has = f"it has {', '.join(names)}" if names else "it has none"
    return (
        f"{original_class(type(module)).__name__} has no parameter or buffer {target!r}; {has}, and "
        f"its inputs and outputs are written _input_ and _output_{hint}"
    )
