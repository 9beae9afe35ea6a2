"""The granularities: each numbers the elements of a target."""

import torch

import tersely


class Diagonals:
    """Element (i, j) of a matrix lies in block (j - i) mod columns."""

    def blocks(self, shape: tuple[int, ...], target: tersely.TargetPlan) -> tersely.Blocks:
        """Return one block for each wrapped diagonal."""
        if len(shape) != 2:
            raise ValueError(f"diagonals need a matrix, found the shape {list(shape)}")
        rows, columns = torch.arange(shape[0])[:, None], torch.arange(shape[1])
        if not len(rows):
            return tersely.Blocks(index=torch.zeros(shape, dtype=torch.int64))
        # With fewer rows than columns every diagonal still begins in the first row.
        return tersely.Blocks(index=(columns - rows) % shape[1])


class PackedHeads:
    """Rows of queries, keys and values that belong to one head lie in one block.

    ``qkv``: all queries, all keys, all values, each head by head, as ``nn.MultiheadAttention`` and
    GPT-2 pack them; ``interleaved``: queries, keys and values of the first head, then of the next,
    as GPT-NeoX does.
    """

    def __init__(self, *, heads: int, order: str = "qkv") -> None:
        """Keep how many heads there are, and in which order their rows lie."""
        self.heads, self.order = heads, order

    def blocks(self, shape: tuple[int, ...], target: tersely.TargetPlan) -> tersely.Blocks:
        """Return one block for each head."""
        outputs = target.output_dim if len(shape) > 1 else 0
        if shape[outputs] % (3 * self.heads):
            raise ValueError(
                f"{shape[outputs]} outputs are no queries, keys and values of {self.heads} heads; "
                f"write as many heads as the layer has, or leave it out"
            )
        width = shape[outputs] // (3 * self.heads)
        heads = torch.arange(self.heads)
        if self.order == "qkv":
            of_outputs = heads.repeat_interleave(width).repeat(3)
        else:
            of_outputs = heads.repeat_interleave(3 * width)
        along = [-1 if dim == outputs else 1 for dim in range(len(shape))]
        return tersely.Blocks(index=of_outputs.reshape(along).expand(shape))
