"""Why a module, parameter or buffer cannot be compressed, or is not there, in words that help."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

from tersely.contracts.kinds import Method
from tersely.errors import PlanError
from tersely.planning.selecting.classes import RESERVED, original_class
from tersely.planning.selecting.selection import Universe
from tersely.text import nearest


def is_ordinary(tensor: Tensor) -> bool:
    """Tell whether nothing can be wrong with a parameter; by far most are like that.

    Args:
        tensor: what a module has under the parameter's name.
    """
    return (
        type(tensor) is nn.Parameter
        and tensor.is_floating_point()
        and tensor.is_contiguous()
        and tensor.numel() > 0
    )


def obstacle(module: nn.Module, target: str, tensor: Tensor) -> str | None:
    """Return why a parameter or buffer cannot be compressed, or None when it can.

    Args:
        module: the module that owns it.
        target: its name.
        tensor: the tensor found under that name.
    """
    if is_ordinary(tensor):
        return None
    if is_lazy(tensor):
        return "it has no shape yet; run one batch through the model first"
    if _is_expanded(tensor):
        return (
            "it is expanded, so several of its elements share memory; give the module its own "
            "parameter, made with .clone()"
        )
    if not tensor.is_floating_point():
        return f"it has dtype {tensor.dtype}; only floating-point tensors can be compressed"
    if target in _STATISTICS and getattr(module, "track_running_stats", False):
        return (
            "it is a running statistic, which forward updates in place, so a mask or rounding "
            "would be lost in training; compress weight and bias instead"
        )
    return None


def _is_expanded(tensor: Tensor) -> bool:
    strides = zip(tensor.stride(), tensor.shape, strict=True)
    return any(stride == 0 and length > 1 for stride, length in strides)


_STATISTICS = ("running_mean", "running_var")


def need_no_flat_parameters(universe: Universe) -> None:
    """Refuse a model whose parameters FullyShardedDataParallel has made one flat tensor.

    Args:
        universe: the model's modules.

    Raises:
        PlanError: names the first module that it wraps.
    """
    for name, module in zip(universe.names, universe.modules, strict=True):
        # By its name, since importing the class costs a second.
        if type(module).__name__ == "FullyShardedDataParallel":
            raise PlanError(
                f"{f'module {name!r}' if name else 'the model'} is wrapped in "
                "FullyShardedDataParallel, which keeps the parameters inside as one flat tensor; "
                "shard with torch.distributed.fsdp.fully_shard(), or compress before you shard",
                target=name or None,
            )


def absence(module: nn.Module, target: str) -> str:
    """Return why a module has no parameter or buffer of a name, and what to write instead.

    Args:
        module: the module that was asked.
        target: the name that it does not have.
    """
    held = holder_of(module, target)
    if held is not None:
        return held
    names = own_names(module)
    near = nearest(target, [*names, "_input_", "_output_"])
    hint = f"; did you mean {near[0]!r}?" if near else ""
    has = f"it has {', '.join(names)}" if names else "it has none"
    type_name = original_class(type(module)).__name__
    return (
        f"{type_name} has no parameter or buffer {target!r}; {has}, and its inputs and outputs are "
        f"written _input_ and _output_{hint}"
    )


def holder_of(module: nn.Module, target: str) -> str | None:
    """Return what computes a parameter from others and how to end that, or None (rule T3).

    Args:
        module: the module that was asked.
        target: the name under which the module has no parameter.
    """
    parameters = module._parameters
    if parametrize.is_parametrized(module, target):
        return (
            "it is parametrized by torch.nn.utils.parametrize; call "
            "torch.nn.utils.parametrize.remove_parametrizations first"
        )
    if f"{target}_orig" in parameters and f"{target}_u" in module._buffers:
        return (
            "it is reparametrized by spectral_norm; call torch.nn.utils.remove_spectral_norm first"
        )
    if f"{target}_orig" in parameters:
        return (
            "it is reparametrized by torch.nn.utils.prune; call torch.nn.utils.prune.remove first"
        )
    if f"{target}_g" in parameters and f"{target}_v" in parameters:
        return "it is reparametrized by weight_norm; call torch.nn.utils.remove_weight_norm first"
    is_computed = isinstance(getattr(type(module), target, None), property)
    if is_computed or isinstance(module.__dict__.get(target), Tensor):
        names = ", ".join(own_names(module)) or "none"
        return (
            "it is a tensor that the module computes or stores, but neither a parameter nor a "
            f"buffer; name what it is computed from in target_names (the module has {names}), or "
            "leave the module out with exclude_op_names"
        )
    return None


def type_parameters(module: nn.Module) -> list[str]:
    """Return the names of a module's parameters as its type has them, also where they are held.

    Args:
        module: any module.
    """
    names = list(module._parameters)
    if parametrize.is_parametrized(module):
        names += [name for name in module.parametrizations if name not in names]  # type: ignore[union-attr]  # a ModuleDict
    found: dict[str, None] = {}
    for name in names:
        stem = name.rpartition("_")[0]
        is_part = name.endswith(_PARTS) and stem not in names and holder_of(module, stem)
        found[stem if is_part else name] = None
    return list(found)


_PARTS = ("_orig", "_g", "_v")


def own_names(module: nn.Module) -> list[str]:
    """Return the names of a module's parameters and buffers, without those that tersely added.

    Args:
        module: any module, perhaps instrumented.
    """
    names = [*module._parameters.keys(), *module._buffers.keys()]
    return [name for name in names if not name.startswith(RESERVED)]


def has_tensor(module: nn.Module, name: str) -> bool:
    """Tell whether a module has a parameter or buffer of a name that is not None.

    Args:
        module: any module.
        name: the attribute's name.
    """
    return module._parameters.get(name) is not None or module._buffers.get(name) is not None


def has_values(module: nn.Module, name: str) -> bool:
    """Tell whether a module has a parameter or buffer of a name that is neither None nor empty.

    Args:
        module: any module.
        name: the attribute's name.
    """
    held = (module._parameters.get(name), module._buffers.get(name))
    return any(one is not None and (is_lazy(one) or bool(one.numel())) for one in held)


def module_obstacle(module: nn.Module) -> str | None:
    """Return why nothing of a module can be compressed, or None when something may be.

    Args:
        module: any module.
    """
    if isinstance(module, torch.jit.ScriptModule):
        return "is a torch.jit.ScriptModule, which cannot be changed; compress it, then script it"
    return None


def no_template(module: nn.Module, method: Method) -> str:
    """Return that a module's type has no default targets, and what to write.

    Args:
        module: any module.
        method: pruning, quantization or distillation.
    """
    type_name = original_class(type(module)).__name__
    example = own_names(module)[:2] or ["_output_"]
    return (
        f"has type {type_name}, which has no default targets for {method}; write target_names: "
        f"[{', '.join(example)}] in this entry, leave the type out with exclude_op_types: "
        f"[{type_name}], or give the type defaults with tersely.register_module_setting"
    )
