"""Sums over batches, steps and processes: what algorithms observe, kept per target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from tersely.contracts.quantizer import MergesObservations
from tersely.engine.processes import gather, summed
from tersely.engine.targets.binding import BoundTarget


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


def observed_together(
    parts: Sequence[Mapping[str, Tensor]], algorithm: object
) -> dict[str, Tensor]:
    """Return what several observations are together.

    Args:
        parts: what was observed; blank ones count for nothing.
        algorithm: what observed, which knows how two observations become one if they do not add.
    """
    found: dict[str, Tensor] = {}
    for part in parts:
        if is_blank(part):
            continue
        if not found:
            found = dict(part)
        elif isinstance(algorithm, MergesObservations):
            found = dict(algorithm.merge(found, part))
        else:
            found = {name: found[name] + part[name] for name in found}
    return found


def put_of_expert(
    total: Mapping[str, Tensor], expert: int, part: Mapping[str, Tensor], algorithm: object
) -> None:
    """Put what was observed of one expert's rows to what was observed before, in place.

    Args:
        total: shape (experts, ...) each; changed.
        expert: its index.
        part: what is new.
        algorithm: what observed.
    """
    if isinstance(algorithm, MergesObservations):
        before = {name: total[name][expert] for name in part}
        for name, tensor in observed_together([before, part], algorithm).items():
            total[name][expert] = tensor
    else:
        for name, tensor in part.items():
            total[name][expert] += tensor


def merged_over_processes(
    total: Mapping[str, Tensor], algorithm: MergesObservations, *, has_experts: bool = False
) -> dict[str, Tensor]:
    """Return what all processes observed together, of observations that are not sums.

    Args:
        total: what this process observed.
        algorithm: knows how two observations become one.
        has_experts: whether dimension 0 of each observation is that of experts.
    """
    everyone = gather({name: tensor.cpu() for name, tensor in total.items()})
    seen = [part for part in everyone if part]
    found = dict(seen[0])
    for part in seen[1:]:
        if has_experts:
            for expert in range(len(next(iter(part.values())))):
                own = {name: tensor[expert] for name, tensor in part.items()}
                put_of_expert(found, expert, own, algorithm)
        else:
            found = dict(algorithm.merge(found, part))
    device = next(iter(total.values())).device if total else torch.device("cpu")
    return {name: tensor.to(device) for name, tensor in found.items()}


def filled(
    observed: Mapping[BoundTarget, Mapping[str, Tensor]], bound_targets: Sequence[BoundTarget]
) -> dict[BoundTarget, dict[str, Tensor]]:
    """Return sums of everything that any process observed, zeros where this one did not.

    Args:
        observed: target -> this process's sums.
        bound_targets: targets, the same in the same order everywhere.

    Returns:
        The sums of those targets that some process observed.
    """
    own = [
        {name: (tuple(one.shape), one.dtype) for name, one in observed.get(bound, {}).items()}
        for bound in bound_targets
    ]
    found: dict[BoundTarget, dict[str, Tensor]] = {}
    for bound, *parts in zip(bound_targets, *gather(own), strict=True):
        sums = dict(observed.get(bound, {}))
        for name, (shape, dtype) in (pair for part in parts for pair in part.items()):
            if name not in sums:
                sums[name] = torch.zeros(shape, dtype=dtype, device=bound.raw.device)
        if sums or bound in observed:
            found[bound] = sums
    return found


def over_processes(total: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return sums added up over all processes; copies only where there are several.

    Args:
        total: this process's sums.
    """
    return {name: summed(tensor) for name, tensor in sorted(total.items())}
