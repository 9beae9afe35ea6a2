"""One block for each channel: of an activation, or the output channels of a weight."""

from __future__ import annotations

import tersely


class PerChannel:
    """The granularity ``per_channel``."""

    def blocks(self, shape: tuple[int, ...], target: tersely.TargetPlan) -> tersely.Blocks:
        """Return one block for each channel.

        The channel dimension of an activation is 1 after convolutions, channel norms and pooling,
        and the last one elsewhere. Output channels of a weight are in dimension 0, for transposed
        convolutions and embeddings in dimension 1; a vector has one dimension. A quantized weight
        of a grouped transposed convolution, (inputs, outputs / groups, ...), also has one block for
        each output channel.

        Args:
            shape: the tensor's shape; for an input or output with the batch in dimension 0.
            target: any target.

        Returns:
            Size 1 in the channel dimension, -1 elsewhere; with groups as above, inputs / groups in
            dimension 0.

        Raises:
            ValueError: the tensor has no channel dimension.
        """
        rank = len(shape)
        if target.kind in ("input", "output"):
            channel = target.channel_dim % rank if rank else 0
            if channel == 0:
                raise ValueError(
                    f"per_channel needs a channel dimension besides the batch, and {target.name} "
                    f"has shape {list(shape)}; write default"
                )
        elif rank:
            channel = min(target.output_dim, rank - 1)
            if channel and target.groups > 1 and target.method == "quantization":
                run = shape[0] // target.groups
                return tersely.Blocks(size=(run, 1, *(-1,) * (rank - 2)))
        else:
            raise ValueError(
                f"per_channel needs a dimension, and {target.name} is a scalar; write default"
            )
        return tersely.Blocks(size=tuple(1 if dim == channel else -1 for dim in range(rank)))
