"""Blocks of a given size, with every form of padding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias, cast

import attrs

import tersely

Padding: TypeAlias = Literal["front", "back"]
BlockList: TypeAlias = Sequence[int | Sequence[int] | Padding]


@attrs.frozen
class Sizes:
    """The parts of a block list.

    Attributes:
        given: the sizes, as written.
        padding: where missing dimensions are added.
        fill: the size of missing dimensions.
    """

    given: tuple[int, ...]
    padding: Padding
    fill: int


class Block:
    """The granularity ``[4, 4]``.

    Args:
        value: sizes, padded in front with 1 up to the tensor's rank; or a list of the sizes,
            ``front`` or ``back``, and the size to pad with, the last two of which are optional.
    """

    def __init__(self, *, value: BlockList) -> None:
        self.value = value
        self.sizes = read_sizes(value)

    def blocks(self, shape: tuple[int, ...], target: tersely.TargetPlan) -> tersely.Blocks:
        """Cut the tensor into blocks of the given size.

        Args:
            shape: the tensor's shape; for an input or output with the batch in dimension 0.
            target: any target.

        Returns:
            The padded size. The batch dimension of an input or output is never divided.

        Raises:
            ValueError: there are more sizes than dimensions, or the batch would be divided.
        """
        given, missing = self.sizes.given, len(shape) - len(self.sizes.given)
        if missing < 0:
            raise ValueError(
                f"{self.value} has {len(given)} sizes, and {target.name} has {len(shape)} "
                f"dimensions (shape {list(shape)}); write at most {len(shape)}"
            )
        padding = (self.sizes.fill,) * missing
        size = padding + given if self.sizes.padding == "front" else given + padding
        if target.kind in ("input", "output") and size:
            size = (_batch_size(size[0], self.value, target), *size[1:])
        return tersely.Blocks(size=size)


def read_sizes(value: BlockList) -> Sizes:
    """Return the parts of a block list.

    Args:
        value: any spelling the schema accepts.
    """
    first = value[0]
    if isinstance(first, int):
        return Sizes(tuple(cast("Sequence[int]", value)), "front", 1)
    padding = cast("Padding", value[1]) if len(value) > 1 else "front"
    fill = cast("int", value[2]) if len(value) > 2 else 1  # noqa: PLR2004  # the third of three
    return Sizes(tuple(cast("Sequence[int]", first)), padding, fill)


def _batch_size(size: int, value: BlockList, target: tersely.TargetPlan) -> int:
    if size not in (1, -1):
        raise ValueError(
            f"{value} puts {size} samples of a batch into one block of {target.name}; a batch has "
            "any number of samples, so write -1 there or leave the entry out"
        )
    return -1
