"""Sums over batches, steps and processes: what algorithms observe, kept per target."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from tersely.contracts.quantizer import MergesObservations
from tersely.engine.processes import gather, summed


def is_blank(observed: Mapping[str, Tensor]) -> bool:
    """Tell whether nothing was observed: no sums, or only zeros.

    Args:
        observed: sums by name.
    """
    return not any(bool(tensor.any()) for tensor in observed.values())


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
    """Return what all processes observed together, of observations that are not sums.

    Args:
        total: what this process observed.
        algorithm: knows how two observations become one.
    """
    everyone = gather({name: tensor.cpu() for name, tensor in total.items()})
    seen = [part for part in everyone if part]
    found = dict(seen[0])
    for part in seen[1:]:
        found = dict(algorithm.merge(found, part))
    device = next(iter(total.values())).device if total else torch.device("cpu")
    return {name: tensor.to(device) for name, tensor in found.items()}


def over_processes(total: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return sums added up over all processes; copies only where there are several.

    Args:
        total: this process's sums.
    """
    return {name: summed(tensor) for name, tensor in sorted(total.items())}
