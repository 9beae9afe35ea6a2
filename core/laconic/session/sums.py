"""Sums over batches, steps and processes: what algorithms observe, kept per target."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from laconic.quantizer_abilities import MergesObservations


def add_sums(total: dict[str, Tensor], part: Mapping[str, Tensor]) -> None:
    """Add what was observed in one batch or step, in place.

    Args:
        total: the sums so far; changed.
        part: what is new; its tensors may be kept.

    Raises:
        ValueError: a sum changes its shape.
    """
    for name, tensor in part.items():
        so_far = total.get(name)
        if so_far is None:
            total[name] = tensor.detach()
        elif so_far.shape != tensor.shape:
            raise ValueError(
                f"{name} changes its shape from {list(so_far.shape)} to {list(tensor.shape)}"
            )
        else:
            so_far += tensor.detach()


def merged_over_processes(
    total: Mapping[str, Tensor], algorithm: MergesObservations
) -> dict[str, Tensor]:
    """Return what all processes observed together, where it is no sum.

    Args:
        total: what this process observed.
        algorithm: knows how two observations become one.
    """
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()):
        return dict(total)
    own = {name: tensor.cpu() for name, tensor in total.items()}
    everyone = [own] * distributed.get_world_size()
    distributed.all_gather_object(everyone, own)
    found = dict(everyone[0])
    for part in everyone[1:]:
        found = dict(algorithm.merge(found, part))
    return {name: found[name].to(tensor.device) for name, tensor in total.items()}


def over_processes(total: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return sums added up over all processes; a copy only where there are several.

    Args:
        total: this process's sums.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return dict(total)
    summed = {}
    for name, tensor in sorted(total.items()):
        summed[name] = tensor.clone()
        torch.distributed.all_reduce(summed[name])
    return summed
