"""Tensors of which the bool ones are stored one bit an element, and unpacked when asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from tersely.arithmetic.bits import check_bits, pack_bits, unpack_bits


class PackedTensors(Mapping[str, Tensor]):
    """Named tensors that hold each mask as bits alone.

    All masks of a large model together, unpacked, are as large as a quarter of its weights; one at
    a time is what a reader needs.

    Args:
        tensors: name -> tensor, or the bits of one.
        shapes: name -> the shape of the tensor that its bits represent.

    Raises:
        ValueError: there are no bits for a shape, or they do not fit it.
    """

    def __init__(self, tensors: Mapping[str, Tensor], shapes: Mapping[str, Sequence[int]]) -> None:
        for name, shape in shapes.items():
            try:
                check_bits(tensors[name], shape)
            except (KeyError, ValueError) as error:
                reason = "there is no such tensor" if isinstance(error, KeyError) else error
                raise ValueError(f"{name}: {reason}") from error
        self._tensors = tensors
        self._shapes = shapes

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> PackedTensors:
        """Pack the bool tensors among some.

        Args:
            tensors: name -> tensor; not modified.
        """
        shapes = {name: list(one.shape) for name, one in tensors.items() if _is_packed(one)}
        bits = {name: pack_bits(tensors[name]) for name in shapes}
        return cls({**tensors, **bits}, shapes)

    @property
    def stored(self) -> Mapping[str, Tensor]:
        """The tensors as they are stored: bits where there are any."""
        return self._tensors

    @property
    def shapes(self) -> Mapping[str, Sequence[int]]:
        """The shape of each tensor that is stored as bits."""
        return self._shapes

    def __getitem__(self, name: str) -> Tensor:
        tensor = self._tensors[name]
        return unpack_bits(tensor, self._shapes[name]) if name in self._shapes else tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


def _is_packed(tensor: Tensor) -> bool:
    return tensor.dtype == torch.bool and tensor.layout == torch.strided
