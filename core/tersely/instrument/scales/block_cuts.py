"""How the values of a quantized target are cut into blocks, whatever rank a batch has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

import attrs
from torch import Tensor

from tersely.arithmetic.blocks import count_blocks

Kind: TypeAlias = Literal["tensor", "channel", "token", "fixed"]


@attrs.frozen(eq=False)
class BlockCut:
    """Cuts values into the blocks that share a scale.

    Attributes:
        kind: one scale for the tensor, for each channel, for each token (a row along the last
            dimension, computed at every call), or for blocks of a fixed size.
        channel_dim: the dimension of channels in an input or output: 1 or -1.
        spatial: how many dimensions follow the channels in dimension 1, or None when any may.
        size: sample shape -> block size without the batch; for ``fixed`` inputs and outputs.
        fixed: the block size of a parameter.
    """

    kind: Kind
    channel_dim: int = -1
    spatial: int | None = None
    size: Callable[[tuple[int, ...]], tuple[int, ...]] | None = None
    fixed: tuple[int, ...] | None = None

    def size_of(self, value: Tensor) -> tuple[int, ...]:
        """Return the block size for a tensor, one integer per dimension, -1 = the whole.

        Args:
            value: the target's values, with the batch.

        Raises:
            ValueError: the tensor cannot be cut this way.
        """
        rank = value.ndim
        if self.fixed is not None:
            return self.fixed
        if self.kind == "tensor" or rank == 0:
            return (-1,) * rank
        if self.kind == "token":
            return (*(1,) * (rank - 1), -1)
        if self.kind == "channel":
            channel = self._channel(rank)
            return tuple(1 if dim == channel else -1 for dim in range(rank))
        if self.size is None:
            raise ValueError("blocks of a fixed size need that size")
        return (-1, *self.size(tuple(value.shape[1:])))

    def _channel(self, rank: int) -> int:
        if self.channel_dim == -1:
            return rank - 1
        is_unbatched = self.spatial is not None and rank == self.spatial + 1
        return 0 if is_unbatched else 1

    def canonical(self, values: Tensor, block: Tensor) -> Tensor:
        """Return one value per block in the shape that is kept, the same for every rank.

        Args:
            values: the tensor that was cut.
            block: shape (blocks along each dimension of ``values``).
        """
        if self.fixed is not None or self.kind == "fixed":
            return block
        if self.kind == "tensor":
            return block.reshape(())
        if self.kind == "channel":
            rank = values.ndim
            if self.channel_dim == 1:
                rank = max(rank, 2) if self.spatial is None else self.spatial + 2
                return block.reshape(1, -1, *(1,) * (rank - 2))
            return block.reshape(*(1,) * (rank - 1), -1)
        return block

    def channel_shape(self, count: int) -> tuple[int, ...]:
        """Return the shape in which one value for each channel is kept before a batch was seen.

        Args:
            count: how many channels there are.
        """
        if self.channel_dim == -1:
            return (count,)
        rank = 2 if self.spatial is None else self.spatial + 2
        return (1, count, *(1,) * (rank - 2))

    def kept_shape(
        self, shape: tuple[int, ...] | None, channels: int | None
    ) -> tuple[int, ...] | None:
        """Return the shape of what `canonical` returns, or None where only a batch tells.

        Args:
            shape: a parameter's, or None.
            channels: how many an input or output has, or None.
        """
        if self.kind == "tensor":
            return ()
        if self.fixed is not None and shape is not None:
            return count_blocks(self.fixed, shape)
        if self.kind != "channel" or channels is None:
            return None
        if self.channel_dim == 1:
            # Of a type that says nothing of what follows the channels, the rank tells.
            return None if self.spatial is None else (1, channels, *(1,) * self.spatial)
        return (1, channels)  # what a batch of rows gives; longer ones replace it

    def view(self, values: Tensor) -> tuple[Tensor, tuple[int, ...]]:
        """Return values in a rank that is always the same, and the block size they have there.

        Args:
            values: the target's values, with the batch.
        """
        if self.kind == "tensor" and self.fixed is None:
            return values.reshape(-1), (-1,)
        if self.kind == "channel":
            channel = self._channel(values.ndim)
            split = values.movedim(channel, -1) if channel != values.ndim - 1 else values
            return split.reshape(-1, split.shape[-1]), (-1, 1)
        return values, self.size_of(values)

    def is_of(self, values: Tensor, scale: Tensor) -> bool:
        """Tell whether an input or output has as many blocks as there are kept values.

        Args:
            values: the input or output, with the batch.
            scale: one value per block, as `canonical` returned it.
        """
        if scale.ndim == 0 or self.kind in ("tensor", "token"):
            return True
        if self.kind == "channel":
            channel = self._channel(values.ndim)
            return -values.ndim <= channel < values.ndim and (
                values.shape[channel] == scale.numel()
            )
        try:
            blocks = count_blocks(self.size_of(values), values.shape)
        except ValueError:
            return False
        return blocks == tuple(scale.shape)

    def fit(self, scale: Tensor, value: Tensor) -> Tensor:
        """Return a kept value per block in a shape that goes with a tensor of another rank.

        Args:
            scale: as `canonical` returned it.
            value: the tensor.
        """
        if scale.ndim in (0, value.ndim) or self.kind != "channel":
            return scale
        if self.channel_dim == -1:
            return scale.reshape(-1)
        trailing = value.ndim - 2 if self.spatial is None else self.spatial
        return scale.reshape(-1, *(1,) * trailing)
