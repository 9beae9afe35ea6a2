"""Refuses parameters that contain infinity or NaN, which no mask or scale can correct."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from tersely.engine.targets.binding import BoundTarget, whole
from tersely.engine.targets.stacks import kinds_of, stacks_of
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
    checked = [bound for bound in bound_targets if not bound.is_activation]
    raws = [bound.raw for bound in checked]
    asked: dict[tuple[torch.dtype, torch.device], list[tuple[Sequence[int], Tensor]]] = {}
    for positions, sums in _sums(raws):
        asked.setdefault((sums.dtype, sums.device), []).append((positions, sums))
    found = []
    for some in asked.values():
        # A finite sum proves that all values are finite; an infinite one may be an overflow. All of
        # one kind are asked at once, since reading a result from a GPU blocks.
        is_finite = torch.cat([sums for _, sums in some]).isfinite()
        if not bool(is_finite.all()):
            places = [position for positions, _ in some for position in positions]
            found += [places[index] for index in (~is_finite).nonzero().flatten().tolist()]
    suspects = [checked[position] for position in sorted(found)]
    _refuse([(bound, wrong) for bound in suspects if (wrong := _description(bound))])


def _sums(tensors: Sequence[Tensor]) -> Iterator[tuple[Sequence[int], Tensor]]:
    """Yield positions of float tensors that have values, and their sums, shape (positions,)."""
    kinds, others = kinds_of(tensors)
    for positions in kinds:
        first = tensors[positions[0]]
        if first.itemsize == 1:
            others += positions
        elif first.is_floating_point():
            for some, stack in stacks_of(tensors, positions):
                yield some, stack.view(len(some), -1).sum(1)
    for position in others:
        tensor = tensors[position].detach()
        if tensor.is_floating_point() and not tensor.is_meta:
            yield (position,), whole(_computable(tensor).sum()).view(1)


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
