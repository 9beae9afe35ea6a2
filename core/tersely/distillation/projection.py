"""Learned linear maps from the student's width or channels to the teacher's (rule D3.3)."""

from __future__ import annotations

import math
import zlib
from collections.abc import Container, Sequence

import torch
from torch import Tensor

from tersely.engine.state.saver import Saved, check_moments
from tersely.errors import SessionFileError

LEARNING_RATE = 1e-3
WEIGHT, BIAS = "weight", "bias"
"""The parts of a map, by which they are saved."""


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
        self.move(leaves)

    def move(self, leaves: Sequence[Tensor]) -> None:
        """Let the session's optimizer move tensors, unless the user's does.

        Args:
            leaves: what is learned.
        """
        if self.is_handed_over or not leaves:
            return
        if self.optimizer is None:
            self.optimizer = torch.optim.Adam(leaves, lr=LEARNING_RATE)
        else:
            self.optimizer.add_param_group({"params": list(leaves)})

    def learned(self) -> dict[tuple[str, str], Tensor]:
        """Return every map's tensors by ``target>link`` and part, in the order they were made."""
        return {
            (key, part): leaf
            for key, leaves in self.tensors.items()
            for part, leaf in zip((WEIGHT, BIAS), leaves, strict=True)
        }

    def hand_over(self) -> list[Tensor]:
        """Return every map's tensors; from now on the user's optimizer moves them."""
        self.is_handed_over = True
        self.optimizer = None
        return list(self.learned().values())


def _initial(key: str, widths: tuple[int, int], device: torch.device) -> tuple[Tensor, Tensor]:
    # As torch.nn.Linear does, from a generator of its own: the user's random numbers stay theirs.
    generator = torch.Generator().manual_seed(zlib.crc32(key.encode()))
    bound = 1 / math.sqrt(widths[1])
    weight = torch.empty(widths).uniform_(-bound, bound, generator=generator)
    return weight.to(device), torch.zeros(widths[0], device=device)


def check_projections(asked: Container[str], saved: Saved) -> None:
    """Refuse saved maps that the plan does not ask for, or of which a part is missing.

    Args:
        asked: ``target>link`` of every pair that may have a map.
        saved: the state.

    Raises:
        SessionFileError: a map is not asked for, incomplete, or its optimizer state does not fit.
    """
    learned: dict[tuple[str, str], Tensor] = {}
    for key in saved.data["projections"]:
        if key not in asked:
            raise SessionFileError(
                f"the saved session has a projection {key}, which its plan does not ask for",
                target=key,
            )
        weight, bias = saved.one(WEIGHT, key), saved.one(BIAS, key)
        if weight is None or bias is None or weight.shape[:1] != bias.shape:
            raise SessionFileError(
                f"the saved session lacks the projection {key}, or a part", target=key
            )
        learned |= {(key, WEIGHT): weight, (key, BIAS): bias}
    check_moments(lambda some: torch.optim.Adam(list(some.values())), learned, saved)
