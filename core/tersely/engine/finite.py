"""Refuses parameters that contain infinity or NaN, which no mask or scale can correct."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from tersely.engine.targets.binding import BoundTarget, whole
from tersely.errors import CalibrationError

_SHOWN = 5  # a model whose training diverged has them everywhere


def need_finite(bound_targets: Iterable[BoundTarget]) -> None:
    """Refuse to mask or to quantize parameters that are not finite (rule B9.10).

    Infinity times 0 is NaN, and a scale clamps infinity to some number.

    Every process has to call this when parameters are sharded.

    Args:
        bound_targets: targets that are about to get masks or scales; inputs and outputs among them
            are left alone.

    Raises:
        CalibrationError: a parameter or buffer holds NaN or infinity; names all of them.
    """
    alike: dict[tuple[torch.dtype, torch.device, torch.Size | None], list[BoundTarget]] = {}
    for bound in bound_targets:
        if bound.is_activation:
            continue
        raw = bound.raw
        if raw.is_floating_point() and not raw.is_meta:
            shape = raw.shape if _is_stackable(raw) else None
            alike.setdefault((raw.dtype, raw.device, shape), []).append(bound)
    asked: dict[tuple[torch.dtype, torch.device], list[tuple[BoundTarget, Tensor]]] = {}
    for (dtype, device, shape), some in alike.items():
        sums = _sums([bound.raw for bound in some], is_stacked=shape is not None)
        asked.setdefault((dtype, device), []).extend(zip(some, sums, strict=True))
    found = []
    for pairs in asked.values():
        # A finite sum proves that all values are finite; an infinite one may be an overflow. All of
        # one kind are asked at once, since reading a result from a GPU blocks.
        if not bool(torch.stack([one for _, one in pairs]).isfinite().all()):
            found += [bound for bound, one in pairs if not bool(one.isfinite())]
    _refuse([(bound, wrong) for bound in found if (wrong := _description(bound))])


_SMALL = 1 << 12
"""Up to this many values tensors of one shape are summed together: a call costs more than a sum."""

_AT_A_TIME = 1 << 20  # values in one stack, so that it takes a few megabytes


def _is_stackable(tensor: Tensor) -> bool:
    is_plain = type(tensor) in (Tensor, nn.Parameter) and tensor.layout == torch.strided
    return is_plain and tensor.itemsize > 1 and 0 < tensor.numel() <= _SMALL


@torch.no_grad()
def _sums(tensors: Sequence[Tensor], *, is_stacked: bool) -> list[Tensor]:
    """Return the sum of each tensor, 0-dim; those that are stacked have one shape."""
    if not is_stacked:
        return [whole(_computable(tensor).sum()) for tensor in tensors]
    count = _AT_A_TIME // max(tensors[0].numel(), 1)
    sums: list[Tensor] = []
    for start in range(0, len(tensors), count):
        stacked = torch.stack(tuple(tensors[start : start + count]))
        sums += stacked.view(len(stacked), -1).sum(1).unbind()
    return sums


def _computable(values: Tensor) -> Tensor:
    # PyTorch computes nothing with floats of 8 bits, which bfloat16 holds exactly.
    return values.bfloat16() if values.dtype.itemsize == 1 else values


def _description(bound: BoundTarget) -> str:
    values = _computable(bound.dense().flatten())
    wrong = (~values.isfinite()).nonzero().flatten()
    if not len(wrong):
        return ""
    index = int(wrong[0])
    return (
        f"{bound.plan.name}: {len(wrong)} of its {len(values)} values are not finite (the first "
        f"is {float(values[index])}, at flat index {index})"
    )


def _refuse(wrong: Sequence[tuple[BoundTarget, str]]) -> None:
    if not wrong:
        return
    shown = "; ".join(text for _, text in wrong[:_SHOWN])
    if len(wrong) > _SHOWN:
        shown += f"; and {len(wrong) - _SHOWN} more targets"
    raise CalibrationError(
        f"{shown}; infinite and NaN values cannot be masked or rounded: load finite weights, from "
        "before training diverged, or leave these targets out",
        **wrong[0][0].plan.place,
    )
