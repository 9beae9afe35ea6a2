"""Learned linear maps from the student's width or channels to the teacher's (rule D3.3)."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping

import torch
from torch import Tensor

LEARNING_RATE = 1e-3
PREFIX = "distillation."
"""How the names of saved tensors begin."""

_PARTS = ("weight", "bias")
_MOVED, _HANDED_OVER = "moved-", "handed_over"


class Projections:
    """All maps of a session; mutable, because a map is made when both widths are first seen.

    Attributes:
        tensors: ``target>link`` -> weight, shape (teacher's width, student's width), and bias.
        is_handed_over: whether the user's optimizer moves them.
    """

    def __init__(self) -> None:
        self.tensors: dict[str, tuple[Tensor, Tensor]] = {}
        self.is_handed_over = False
        self.optimizer: torch.optim.Optimizer | None = None

    def apply(
        self, target: str, link: str, student: Tensor, teacher: Tensor, *, dim: int = -1
    ) -> Tensor:
        """Return the student's values, mapped where the widths differ.

        Args:
            target: the student's target.
            link: the teacher's module.
            student: the student's width in dimension ``dim``, float.
            teacher: the teacher's width in dimension ``dim``, float.
            dim: the dimension that is mapped, -1 or 1.
        """
        key = f"{target}>{link}"
        has_widths = min(student.ndim, teacher.ndim) > max(dim, 0)
        widths = (teacher.shape[dim], student.shape[dim]) if has_widths else (0, 0)
        if widths[0] == widths[1] and key not in self.tensors:
            return student
        if key not in self.tensors:
            self.add(key, *_initial(key, widths, student.device))
        weight, bias = self.tensors[key]
        mapped = torch.nn.functional.linear(
            student.movedim(dim, -1), weight.to(student.dtype), bias.to(student.dtype)
        )
        return mapped.movedim(-1, dim)

    def add(self, key: str, weight: Tensor, bias: Tensor) -> None:
        """Take over a map.

        Args:
            key: ``target>link``.
            weight: shape (teacher's width, student's width), float.
            bias: shape (teacher's width,), float.
        """
        leaves = (
            weight.detach().clone().requires_grad_(),
            bias.detach().clone().requires_grad_(),
        )
        self.tensors[key] = leaves
        if self.is_handed_over:
            return
        if self.optimizer is None:
            self.optimizer = torch.optim.Adam(leaves, lr=LEARNING_RATE)
        else:
            self.optimizer.add_param_group({"params": list(leaves)})

    def hand_over(self) -> list[Tensor]:
        """Return every map's tensors; from now on the user's optimizer moves them."""
        self.is_handed_over = True
        self.optimizer = None
        return [leaf for leaves in self.tensors.values() for leaf in leaves]


def projection_state(projections: Projections) -> dict[str, Tensor]:
    """Return all maps, and the optimizer that moves them, as named tensors.

    Args:
        projections: a session's projections.
    """
    found: dict[str, Tensor] = {}
    for key, leaves in projections.tensors.items():
        for part, leaf in zip(_PARTS, leaves, strict=True):
            found[f"{PREFIX}{part}:{key}"] = leaf.detach()
    if projections.is_handed_over:
        found[f"{PREFIX}{_HANDED_OVER}:"] = torch.ones(())
    if projections.optimizer is not None:
        for index, parts in projections.optimizer.state_dict()["state"].items():
            for part, value in parts.items():
                if value is not None:
                    found[f"{PREFIX}{_MOVED}{part}:{index}"] = torch.as_tensor(value)
    return found


def restore_projections(projections: Projections, tensors: Mapping[str, Tensor]) -> None:
    """Put saved maps back.

    Args:
        projections: those of a freshly attached session.
        tensors: what `projection_state` returned.
    """
    maps: dict[str, dict[str, Tensor]] = {}
    moved: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        part, _, key = name.removeprefix(PREFIX).partition(":")
        if part == _HANDED_OVER:
            projections.is_handed_over = True
        elif part.startswith(_MOVED):
            moved.setdefault(int(key), {})[part.removeprefix(_MOVED)] = tensor
        else:
            maps.setdefault(key, {})[part] = tensor
    # In the order in which they were made: the optimizer counts them.
    for key, parts in maps.items():
        projections.add(key, *(parts[part] for part in _PARTS))
    if projections.optimizer is not None and moved:
        whole = projections.optimizer.state_dict()
        projections.optimizer.load_state_dict({**whole, "state": moved})


def _initial(key: str, widths: tuple[int, int], device: torch.device) -> tuple[Tensor, Tensor]:
    # As torch.nn.Linear does, from a generator of its own: the user's random numbers stay theirs.
    generator = torch.Generator().manual_seed(zlib.crc32(key.encode()))
    bound = 1 / math.sqrt(widths[1])
    weight = torch.empty(widths).uniform_(-bound, bound, generator=generator)
    return weight.to(device), torch.zeros(widths[0], device=device)
