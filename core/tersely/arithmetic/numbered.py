"""Blocks of any shape: every element of a tensor carries the number of its block."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

Index: TypeAlias = Tensor | Sequence[Any]
"""Block numbers in a tensor's shape: a tensor, a NumPy array or nested sequences of integers."""


class NumberingError(ValueError):
    """An index that numbers no blocks; the text says what is wrong with it."""


class Numbering(tuple[int, ...]):
    """A block size that is not rectangular, for every function that takes one.

    To code that reads lengths it is a 0 for each dimension, which no length along a dimension is,
    so that what does not know of numbers fails instead of cutting something else.

    Attributes:
        numbers: shape of the tensor, int32, on the CPU: the number of each element's block.
        sizes: shape (blocks,), int64, on the CPU: elements of each block, none of them 0.
        total: how many blocks there are.
        is_even: whether all of them hold equally many elements.
    """

    numbers: Tensor
    sizes: Tensor
    total: int
    is_even: bool

    def __new__(cls, index: Index) -> Numbering:
        """Check an index and keep it.

        Args:
            index: the number of each element's block, from 0 on, each number used.

        Raises:
            NumberingError: it holds no integers, a number is negative, or one is left out.
        """
        numbers = _numbers(index)
        self = super().__new__(cls, (0,) * numbers.ndim)
        self.sizes = _sizes(numbers)
        self.total = len(self.sizes)
        self.is_even = not self.total or bool((self.sizes == self.sizes[0]).all())
        self.numbers = numbers.to(torch.int32, copy=True).contiguous()
        return self

    @property
    def shuffles_vector(self) -> bool:
        """Whether each element of a vector is a block, and they are numbered in another order.

        One value per block then has the shape of one value per element, and means something else.
        """
        if len(self) != 1 or self.total != self.numbers.numel():
            return False
        return not torch.equal(self.numbers, torch.arange(self.total, dtype=torch.int32))

    @property
    def even_size(self) -> int:
        """Elements in each block.

        Raises:
            ValueError: the blocks differ.
        """
        if not self.is_even:
            raise ValueError(
                f"its {self.total} numbered blocks hold {int(self.sizes.min())} to "
                f"{int(self.sizes.max())} elements, expected equally many in each"
            )
        return int(self.sizes[0]) if self.total else 1

    def check_shape(self, shape: Sequence[int]) -> None:
        """Refuse a tensor of another shape.

        Args:
            shape: the tensor's shape.

        Raises:
            ValueError: it is not the index's.
        """
        if tuple(shape) != tuple(self.numbers.shape):
            raise ValueError(
                f"the index of its blocks has shape {list(self.numbers.shape)}, expected the "
                f"tensor's shape {list(shape)}"
            )

    def has_slices(self, dim: int, *, all_of_them: bool = False) -> bool:
        """Tell whether a block holds all of the tensor at a position of one dimension.

        Args:
            dim: the dimension.
            all_of_them: whether one has to at every position.
        """
        slices = self.numbers.movedim(dim, 0).reshape(self.numbers.shape[dim], -1)
        found = (slices == slices[:, :1]).all(1)
        return bool(found.all() if all_of_them else found.any())

    def sum(self, tensor: Tensor) -> Tensor:
        """Sum every block.

        Args:
            tensor: of the index's shape.

        Returns:
            Shape (blocks,); the tensor's dtype, int64 for bool.
        """
        self.check_shape(tensor.shape)
        dtype = torch.int64 if tensor.dtype == torch.bool else tensor.dtype
        if not tensor.is_cpu:
            # Elsewhere the order of additions into one place differs from run to run.
            return self.reduce(tensor.to(dtype), torch.sum)
        # Added one after the other, so in a type that rounds little.
        wide = torch.float64 if dtype.is_floating_point else dtype
        sums = torch.zeros(self.total, dtype=wide)
        return sums.index_add_(0, self.numbers.flatten(), tensor.flatten().to(wide)).to(dtype)

    def range(self, tensor: Tensor) -> tuple[Tensor, Tensor]:
        """Return the smallest and the largest element of every block, in one pass each.

        Args:
            tensor: of the index's shape, float.

        Returns:
            Low and high, each of shape (blocks,), the tensor's dtype; NaN where a block has NaN.
        """
        self.check_shape(tensor.shape)
        where = self.numbers.to(tensor.device, torch.int64).flatten()
        empty = tensor.new_zeros(self.total)
        low, high = (
            empty.scatter_reduce(0, where, tensor.flatten(), kind, include_self=False)
            for kind in ("amin", "amax")
        )
        return low, high

    def reduce(self, tensor: Tensor, reduction: Callable[[Tensor, int], Tensor]) -> Tensor:
        """Reduce every block to one value.

        Args:
            tensor: of the index's shape.
            reduction: called with (blocks of one size, -1); removes the last dimension.

        Returns:
            Shape (blocks,), whatever dtype the reduction has.
        """
        self.check_shape(tensor.shape)
        elements = tensor.flatten()[self._order().to(tensor.device)]
        if self.is_even:
            return reduction(elements.reshape(self.total, -1), -1)
        # Blocks of one size after the other; few sizes differ in any numbering with a meaning.
        starts = self.sizes.cumsum(0) - self.sizes
        found: Tensor | None = None
        for size in sorted(set(self.sizes.tolist())):
            some = (self.sizes == size).nonzero().flatten()
            places = starts[some, None] + torch.arange(size)
            part = reduction(elements[places.to(tensor.device)], -1)
            if found is None:
                found = part.new_empty(self.total)
            found[some.to(part.device)] = part
        assert found is not None  # blocks that differ are two at least
        return found

    def stack(self, tensor: Tensor) -> Tensor:
        """Lay the elements of each block out as a row, in ascending flat index.

        Args:
            tensor: of the index's shape.

        Returns:
            Shape (blocks, elements per block), new memory.

        Raises:
            ValueError: the blocks differ in size.
        """
        self.check_shape(tensor.shape)
        rows = (self.total, self.even_size)
        return tensor.flatten()[self._order().to(tensor.device)].reshape(rows)

    def expand(self, values: Tensor) -> Tensor:
        """Repeat one value per block over the block's elements.

        Args:
            values: shape (blocks,).

        Returns:
            The index's shape, new memory.
        """
        where = self.numbers.to(values.device).flatten()
        return values.index_select(0, where).reshape(self.numbers.shape)

    def _order(self) -> Tensor:
        return self.numbers.flatten().argsort(stable=True)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Numbering) and (
            self.numbers is other.numbers or torch.equal(self.numbers, other.numbers)
        )

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash((len(self), self.total))

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, slice):
            raise TypeError("a numbering of blocks has no part that numbers fewer dimensions")
        return super().__getitem__(key)

    def __reduce__(self) -> tuple[type[Numbering], tuple[Tensor]]:
        return Numbering, (self.numbers,)

    def __repr__(self) -> str:
        return f"Numbering({self.total} blocks in {list(self.numbers.shape)})"


def uneven_sizes(size: Sequence[int]) -> Tensor | None:
    """Return how many elements each block holds, where that differs.

    Args:
        size: any block size.

    Returns:
        Shape (blocks,), int64, on the CPU; None where all hold equally many.
    """
    return None if not isinstance(size, Numbering) or size.is_even else size.sizes


def renumber(numbers: Tensor) -> tuple[Tensor, Tensor]:
    """Number what is left of numbered blocks without gaps, in the order they had.

    Args:
        numbers: the numbers of the elements that are left, int32, not negative.

    Returns:
        New numbers, the same shape, int64; and the old numbers of those that are left, ascending.
    """
    flat = numbers.flatten().to(torch.int64)
    is_left = torch.bincount(flat) > 0
    return (is_left.cumsum(0) - 1)[flat].reshape(numbers.shape), is_left.nonzero().flatten()


def _numbers(index: Index) -> Tensor:
    try:
        # A copy, so that views of any strides and those that no one may write to can be taken.
        numbers = index if isinstance(index, Tensor) else _from_array(np.array(index))
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise NumberingError(
            f"the index of blocks is not a tensor ({error}); number every element's block in the "
            "shape of the target"
        ) from None
    if numbers.is_meta or numbers.layout != torch.strided:
        found = "is on the meta device" if numbers.is_meta else f"has layout {numbers.layout}"
        raise NumberingError(
            f"the index of blocks {found}, expected a dense tensor with values; make it on the CPU"
        )
    if numbers.is_floating_point() or numbers.is_complex() or numbers.dtype == torch.bool:
        raise NumberingError(
            f"the index of blocks has dtype {numbers.dtype}, expected integers: the number of "
            "each element's block"
        )
    return numbers.detach().cpu()


def _from_array(array: np.ndarray) -> Tensor:
    # Without elements, lists do not tell what they would have held.
    return torch.from_numpy(array if array.size else array.astype(np.int64))


def _sizes(numbers: Tensor) -> Tensor:
    flat = numbers.flatten().to(torch.int64)
    if not flat.numel():
        return torch.zeros(0, dtype=torch.int64)
    lowest, highest = (int(value) for value in flat.aminmax())
    if lowest < 0:
        raise NumberingError(
            f"the index of blocks holds {lowest}, expected numbers from 0 on: every element "
            "belongs to a block"
        )
    if highest >= flat.numel():
        raise NumberingError(
            f"the index of blocks holds {highest}, and its tensor has fewer elements than that; "
            "number blocks without gaps, from 0 on"
        )
    sizes = flat.bincount()
    unused = (sizes == 0).nonzero().flatten()
    if len(unused):
        raise NumberingError(
            f"the index of blocks goes up to {highest}, but no element is in block "
            f"{int(unused[0])}; number blocks without gaps"
        )
    return sizes
