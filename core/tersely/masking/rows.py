"""Selection inside every row of a matrix: the lowest few of each row are masked."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from tersely.masking.counting import CHUNK, as_array
from tersely.masking.select import SMALL, cut_smallest, is_above

PAIRWISE = 16
"""Rows up to this length are ranked by comparing every pair of columns."""

PARTITIONED = 512
"""Rows up to this length are cut by NumPy on the CPU.

For 256 columns its partition takes a tenth of the time of PyTorch's ``kthvalue``, for 1024 almost
half, and PyTorch has several threads.
"""

# As in tersely.masking.counting: operations of this size run on one thread and stay in cache.
_ROWS_AT_A_TIME = CHUNK
_ROWS_ON_A_DEVICE = 2**23
"""The same where starting an operation costs more than reading from memory."""


def keep_highest(rows: Tensor, masked: int, *, is_expendable: bool = False) -> Tensor:
    """Mask the lowest values of every row, ties at the lowest index.

    Args:
        rows: shape (rows, columns), float, finite.
        masked: how many of each row are masked.
        is_expendable: whether the result may take the place of the rows.

    Returns:
        ``rows``'s shape, bool, True = kept; exactly ``masked`` are False in every row. 0 and 1 in
        the rows' dtype where it took their place.
    """
    count, columns = rows.shape
    if masked <= 0:
        return torch.ones_like(rows, dtype=torch.bool)
    if masked >= columns:
        return torch.zeros_like(rows, dtype=torch.bool)
    if count == 1:
        return _by_cut(rows[0], masked, out=rows[0] if is_expendable else None)[None]
    if columns > SMALL:
        return torch.stack([_by_cut(row, masked) for row in rows])
    if columns <= PAIRWISE:
        return _by_comparison(rows, masked, is_expendable=is_expendable)
    return _by_row_quantile(rows, masked)


def _by_cut(row: Tensor, masked: int, out: Tensor | None = None) -> Tensor:
    cut = cut_smallest([row], [1], masked)
    return is_above(row, cut.value, cut.ties[0], out=out)


def _by_comparison(rows: Tensor, masked: int, *, is_expendable: bool) -> Tensor:
    # A column's rank is how many others come before it; of two equals the earlier comes before.
    columns = rows.shape[1]
    if rows.numel() * columns <= _ROWS_AT_A_TIME:
        return _by_table(rows, masked)
    rank = _rank_arrays if rows.is_cpu else _rank_tensors
    at_a_time = _ROWS_AT_A_TIME if rows.is_cpu else _ROWS_ON_A_DEVICE
    # Rows that were ranked are not read again, so the result may lie where they are.
    has_array = not rows.is_cpu or rows.dtype in (torch.float32, torch.float64)
    kept = rows if is_expendable and has_array else torch.empty_like(rows, dtype=torch.bool)
    for start in range(0, rows.shape[0], at_a_time):
        some = slice(start, start + at_a_time)
        rank(rows[some], masked, kept[some])
    return kept


def _rank_arrays(rows: Tensor, masked: int, kept: Tensor) -> None:
    # Columns side by side in memory: comparisons are vectorized only then. They are copies, also
    # of a single row, because the result may take the rows' place.
    columns = list(np.array(as_array(rows).T, order="C"))
    count = len(columns)
    ranks = [np.full(len(rows), count - 1 - column, np.uint8) for column in range(count)]
    comes_before = np.empty(len(rows), bool)
    as_number = comes_before.view(np.uint8)
    for left in range(count):
        for right in range(left + 1, count):
            np.less_equal(columns[left], columns[right], out=comes_before)
            np.add(ranks[right], as_number, out=ranks[right])
            np.subtract(ranks[left], as_number, out=ranks[left])
    result = kept.numpy()
    # Converted first: NumPy converts and strides at once three times as slowly.
    values = comes_before if result.dtype == bool else np.empty(len(rows), result.dtype)
    for column, rank in enumerate(ranks):
        np.greater_equal(rank, masked, out=comes_before)
        np.copyto(values, comes_before)
        result[:, column] = values


def _rank_tensors(rows: Tensor, masked: int, kept: Tensor) -> None:
    part = rows.unbind(1)
    columns = len(part)
    ranks = [torch.full_like(part[0], 0, dtype=torch.uint8) for _ in range(columns)]
    for left in range(columns):
        ranks[left] += columns - 1 - left
        for right in range(left + 1, columns):
            comes_before = torch.le(part[left], part[right]).view(torch.uint8)
            ranks[right] += comes_before
            ranks[left] -= comes_before
    for column, rank in enumerate(ranks):
        kept[:, column] = rank >= masked


def _by_table(rows: Tensor, masked: int) -> Tensor:
    # All pairs in a few operations: where there are few rows, calls cost more than comparisons.
    columns = rows.shape[1]
    part = rows.T
    earlier = torch.ones(columns, columns, dtype=torch.bool, device=rows.device).triu_(1)
    before = (part[:, None] <= part[None]).logical_and_(earlier[..., None]).view(torch.int8)
    ahead = torch.arange(columns - 1, -1, -1, dtype=torch.int8, device=rows.device)
    ranks = before.sum(0, dtype=torch.int8).sub_(before.sum(1, dtype=torch.int8))
    return (ranks.add_(ahead[:, None]) >= masked).T


def _by_row_quantile(rows: Tensor, masked: int) -> Tensor:
    highest_masked = _row_quantiles(rows, masked)
    kept = rows > highest_masked
    excess = rows.shape[1] - kept.sum(1) - masked
    tied = excess.nonzero().flatten()
    if len(tied):
        some, limit = rows[tied], highest_masked[tied]
        equal = some == limit
        allowed = masked - (some < limit).sum(1, keepdim=True)
        kept[tied] |= equal & (equal.cumsum(1) > allowed)
    return kept


def _row_quantiles(rows: Tensor, masked: int) -> Tensor:
    """Return the ``masked``-th smallest value of every row, shape (rows, 1)."""
    if not rows.is_cpu or rows.shape[1] > PARTITIONED:
        return rows.kthvalue(masked, dim=1, keepdim=True).values
    partitioned = np.partition(as_array(rows.detach()), masked - 1, axis=1)
    return torch.from_numpy(partitioned[:, masked - 1 : masked]).to(rows.dtype)
