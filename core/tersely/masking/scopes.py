"""Importances laid out as one row per scope, and the decisions laid back."""

from __future__ import annotations

import math

from torch import Tensor

from tersely.arithmetic.blocks import resolve_size, to_blocks
from tersely.errors import PlanError
from tersely.masking.member import Member


def scope_in_blocks(member: Member) -> tuple[int, ...] | None:
    """Return how many blocks a scope spans along each dimension, or None for the whole tensor.

    Args:
        member: the target.

    Raises:
        PlanError: a scope does not divide the shape or cuts through blocks.
    """
    if member.blocks.scope is None:
        return None
    size = resolve_size(member.blocks.size, member.shape)
    try:
        scope = resolve_size(member.blocks.scope, member.shape)
    except ValueError as error:
        raise PlanError(
            f"{member.name}: the scope of its ratio does not fit: {error}", target=member.name
        ) from None
    if any(outer % inner for outer, inner in zip(scope, size, strict=True)):
        raise PlanError(
            f"{member.name}: the scope {list(scope)} of its ratio cuts through blocks of "
            f"{list(size)}; every scope must hold whole blocks",
            target=member.name,
        )
    return tuple(outer // inner for outer, inner in zip(scope, size, strict=True))


def to_rows(importance: Tensor, scope: tuple[int, ...] | None, runs: int) -> Tensor:
    """Lay importances out as rows in each of which the ratio is met.

    Args:
        importance: shape (blocks along each dimension).
        scope: blocks per scope along each dimension, or None for the whole tensor.
        runs: how many equal runs the whole is split into where there is no scope.

    Returns:
        Shape (rows, blocks per row), each row in ascending flat index.
    """
    if importance.numel() == 0:
        return importance.reshape(1, 0)
    if scope is None:
        return importance.reshape(runs, -1)
    return to_blocks(importance, scope).reshape(-1, math.prod(scope))


def from_rows(rows: Tensor, scope: tuple[int, ...] | None, shape: tuple[int, ...]) -> Tensor:
    """Undo `to_rows`.

    Args:
        rows: shape (rows, blocks per row).
        scope: as it was given to `to_rows`.
        shape: the shape to return to, (blocks along each dimension).
    """
    if scope is None or rows.numel() == 0:
        return rows.reshape(shape)
    rank = len(shape)
    counts = [length // size for length, size in zip(shape, scope, strict=True)]
    order = [dim for pair in zip(range(rank), range(rank, 2 * rank), strict=True) for dim in pair]
    return rows.reshape(*counts, *scope).permute(order).reshape(shape)
