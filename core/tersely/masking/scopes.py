"""Importances arranged as one row per scope, and decisions arranged back."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from tersely.arithmetic.blocks import Blocks, count_blocks, resolve_size, to_blocks


def scope_in_blocks(blocks: Blocks, shape: Sequence[int]) -> tuple[int, ...] | None:
    """Return how many blocks a scope spans along each dimension, or None for the whole tensor.

    Args:
        blocks: blocks whose scope holds whole blocks, as planning has checked.
        shape: the target's shape.
    """
    if blocks.scope is None:
        return None
    scope, size = resolve_size(blocks.scope, shape), resolve_size(blocks.size, shape)
    return tuple(outer // inner for outer, inner in zip(scope, size, strict=True))


def scopes_problem(members: Sequence[tuple[Blocks, Sequence[int]]]) -> str | None:
    """Return why targets cannot share one decision because of where their ratio is counted.

    Args:
        members: the blocks and shape of each target of a dependency group.

    Returns:
        The reason with what to do, or None.
    """
    scopes = {(scope_in_blocks(blocks, shape), blocks.keep) for blocks, shape in members}
    if len(scopes) > 1:
        return (
            "its members share one decision, but their granularities count the ratio in different "
            "scopes; give them the same granularity"
        )
    counts = list(dict.fromkeys(count_blocks(blocks.size, shape) for blocks, shape in members))
    if members[0][0].scope is not None and len(counts) > 1:
        return (
            "its granularity counts the ratio in scopes, so its members need blocks of the same "
            f"shape; found {' and '.join(str(list(count)) for count in counts)}"
        )
    return None


def to_rows(importance: Tensor, scope: tuple[int, ...] | None, runs: int) -> Tensor:
    """Arrange importances as rows, in each of which the ratio is met.

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
