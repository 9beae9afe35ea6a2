"""Masks that follow another target's: reduced to the shared dimensions, placed on the shape."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tersely.arithmetic.blocks import Blocks, count_blocks, resolve_size
from tersely.arithmetic.numbered import Numbering
from tersely.errors import PlanError


def align_kept(source: Tensor, dims: Sequence[int], *, name: str = "align") -> Tensor:
    """Reduce a mask to some dimensions: a position is kept when anything of the source there is.

    Args:
        source: the mask to follow, bool, True = kept, with the rank of the source target; a
            dimension it does not distinguish may have length 1.
        dims: dimensions of the source, negative from the end, in the order of the result.
        name: the aligned target's name, for errors.

    Returns:
        Bool, one dimension for each of ``dims``.

    Raises:
        PlanError: a dimension does not exist or is given twice.
    """
    rank = source.dim()
    outside = [dim for dim in dims if not -rank <= dim < rank]
    if outside:
        raise PlanError(
            f"{name}: align.dims {list(dims)}: the source has {rank} dimension"
            f"{'' if rank == 1 else 's'}, so {outside[0]} is none of them; write "
            f"{'0' if rank == 1 else f'0 to {rank - 1}'}",
            target=name,
        )
    wanted = [dim % rank for dim in dims]
    if len(set(wanted)) < len(wanted):
        raise PlanError(f"{name}: align.dims {list(dims)} names a dimension twice", target=name)
    others = [dim for dim in range(rank) if dim not in wanted]
    kept = source.any(others) if others else source
    return kept.permute([sorted(wanted).index(dim) for dim in wanted])


def place_kept(
    kept: Tensor,
    shape: Sequence[int],
    *,
    groups: int = 1,
    blocks: Blocks | None = None,
    name: str = "align",
) -> Tensor:
    """Place an aligned mask on a parameter: dimension d of the mask on dimension d (rule B7.4).

    Args:
        kept: as `align_kept` returns it.
        shape: the target's shape.
        groups: of a grouped or transposed convolution, whose weight counts channels per group: a
            mask that is this many times too short is repeated.
        blocks: the target's own granularity; a block is kept when anything of it is. None leaves
            every element of its own.
        name: the aligned target's name, for errors.

    Returns:
        Bool, True = kept. With ``blocks`` the shape (blocks along each dimension), without them
        the target's rank, of length 1 in dimensions that are not distinguished.

    Raises:
        PlanError: the mask is longer than the target has dimensions, or of another length.
    """
    rank = len(shape)
    if kept.dim() > rank:
        raise PlanError(
            f"{name}: align.dims covers {kept.dim()} dimensions, the target has {rank} "
            f"(shape {list(shape)})",
            target=name,
        )
    for dim in range(kept.dim()):
        kept = _fit(kept, dim, shape[dim], groups=groups, name=name)
    placed = kept.reshape(kept.shape + (1,) * (rank - kept.dim()))
    return placed if blocks is None else _by_blocks(placed, shape, blocks)


def _fit(kept: Tensor, dim: int, length: int, *, groups: int, name: str) -> Tensor:
    found = kept.shape[dim]
    if found in (length, 1):
        return kept
    if found * groups == length:
        return torch.cat([kept] * groups, dim)
    raise PlanError(
        f"{name}: the source of align has {found} positions along the aligned dimension, the "
        f"target has {length}; choose align.dims so that both have the same length",
        target=name,
    )


def _by_blocks(placed: Tensor, shape: Sequence[int], blocks: Blocks) -> Tensor:
    sizes = resolve_size(blocks.size, shape)
    if isinstance(sizes, Numbering):
        return sizes.reduce(placed.expand(tuple(shape)), torch.any)
    for dim, (size, length) in enumerate(zip(sizes, placed.shape, strict=True)):
        if length > 1 and size > 1:
            runs = (*placed.shape[:dim], length // size, size, *placed.shape[dim + 1 :])
            placed = placed.reshape(runs).any(dim + 1)
    return placed.expand(count_blocks(blocks.size, shape)).clone()
