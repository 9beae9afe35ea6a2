"""What shrink() refuses at once: wrappers, and masks of single elements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from tersely.document.recipe import Stage
from tersely.errors import SessionError
from tersely.instrument.modules.classes import is_sharded


def need_plain_model(model: nn.Module) -> None:
    """Refuse models whose tensors cannot become smaller in place.

    Args:
        model: the session's model.

    Raises:
        SessionError: it is compiled, exported, wrapped for several devices, or sharded.
    """
    for name, module in model.named_modules():
        place = repr(name) if name else "the model"
        if isinstance(module, torch._dynamo.OptimizedModule) or module._compiled_call_impl:
            raise SessionError(
                f"shrink() found that {place} is compiled; shrink first, then torch.compile",
                target=name,
            )
        if _is_exported(module):
            raise SessionError(
                f"shrink() found that {place} is exported ({type(module).__name__}), with its "
                "sizes written into its graph; shrink the model that it was exported from",
                target=name,
            )
        if isinstance(module, (DataParallel, DistributedDataParallel)):
            raise SessionError(
                f"shrink() found that {place} is wrapped in {type(module).__name__}; shrink before "
                "wrapping, in every process alike",
                target=name,
            )
        if type(module).__name__ == "FullyShardedDataParallel":
            raise SessionError(
                f"shrink() found that {place} is sharded by FSDP; shrink before", target=name
            )
    for name, parameter in model.named_parameters():
        if is_sharded(parameter):
            raise SessionError(
                f"shrink() found that {name} is sharded by FSDP; shrink before fully_shard",
                target=name,
            )
        if parameter.is_meta:
            raise SessionError(
                f"shrink() found that {name} is on the meta device: load weights", target=name
            )


def need_example(example_inputs: Any) -> Any:
    """Return example inputs, or refuse to shrink without them.

    Args:
        example_inputs: the caller's, or those that the session was attached with.

    Raises:
        SessionError: there are none.
    """
    if example_inputs is None:
        raise SessionError(
            "shrink() has no example_inputs to run the model with; give shrink() a tensor, a tuple "
            "of arguments or a mapping of keyword arguments, or attach with example_inputs=..."
        )
    return example_inputs


def need_options(optimizer: object, *, round_to: object, approximate: object) -> None:
    """Refuse invalid options of shrink().

    Args:
        optimizer: the user's, or None.
        round_to: the number of which row counts are multiples.
        approximate: whether to remove constants that no bias takes over exactly.

    Raises:
        SessionError: one of them is invalid.
    """
    if not isinstance(round_to, int) or isinstance(round_to, bool) or round_to < 1:
        raise SessionError(f"shrink() found round_to={round_to!r}; give an integer of at least 1")
    if not isinstance(approximate, bool):
        raise SessionError(f"shrink() found approximate={approximate!r}; give True or False")
    if not isinstance(optimizer, torch.optim.Optimizer | None):
        raise SessionError(
            f"shrink() found an optimizer of type {type(optimizer).__name__}; give the "
            "torch.optim.Optimizer of the model's parameters, or none"
        )


def need_sparsity_reached(growing: Sequence[int], stages: Sequence[Stage]) -> None:
    """Refuse while a schedule is unfinished: its sparsity counts the original model.

    Args:
        growing: indices of the stages whose sparsity still grows.
        stages: the recipe's stages.

    Raises:
        SessionError: a stage has not reached its sparsity.
    """
    if growing:
        raise SessionError(
            f"shrink() found that the sparsity of {stages[growing[0]].path} is still growing; call "
            "it once its schedule has ended",
            path=stages[growing[0]].path,
            algorithm=stages[growing[0]].algorithm,
        )


def need_structured_masks(kept: Mapping[str, Tensor]) -> None:
    """Refuse masks without a row or column that is masked whole.

    Args:
        kept: parameter -> its mask, bool, True = kept, the parameter's shape.

    Raises:
        SessionError: nothing is masked, or single elements only.
    """
    if not kept:
        raise SessionError(
            "shrink() found no mask of a parameter; prune with a structured granularity first, "
            "such as granularity: out_channel"
        )
    is_masked = False
    for mask in kept.values():
        if bool(mask.all()):
            continue
        is_masked = True
        for dim in range(min(mask.ndim, 2)):
            others = [one for one in range(mask.ndim) if one != dim]
            if not bool((mask.any(dim=others) if others else mask).all()):
                return
    if not is_masked:
        raise SessionError("shrink() found masks that keep everything; nothing can be removed")
    names = ", ".join(list(kept)[:3])
    raise SessionError(
        f"shrink() found masks of single elements only ({names}), with no row or column masked "
        "whole, so nothing can be removed; use granularity: out_channel (or in_channel), "
        "or an algorithm that prunes channels, such as l1_norm"
    )


def _is_exported(module: nn.Module) -> bool:
    # A scripted module without tensors takes any size; the proof runs it.
    if isinstance(module, torch.jit.ScriptModule):
        return any(True for _ in chain(module.parameters(), module.buffers()))
    return isinstance(module, torch.fx.GraphModule)
