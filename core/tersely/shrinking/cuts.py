"""Cuts: what is taken out of one tensor, applied to whatever has its shape."""

from __future__ import annotations

from collections.abc import Mapping

import attrs
import torch
from torch import Tensor

from tersely.shrinking.labels import varying
from tersely.shrinking.solve import Solution


@attrs.frozen(eq=False)
class Cut:
    """What stays of a tensor, and of masks, scales and optimizer state of its shape.

    Attributes:
        name: the parameter or buffer.
        before: its shape.
        after: its shape without what goes.
        kept: the positions that stay along each dimension, None where all do.
        columns: for a grouped convolution, the columns that stay of each remaining row:
            int64, shape (rows, columns); None otherwise.
    """

    name: str
    before: tuple[int, ...]
    after: tuple[int, ...]
    kept: tuple[Tensor | None, ...]
    columns: Tensor | None = None

    def __call__(self, tensor: Tensor) -> Tensor:
        """Return what stays of a tensor that broadcasts to the shape before.

        Dimensions of size 1 stay as they are.
        """
        lead = len(self.before) - tensor.ndim
        for dim in range(tensor.ndim):
            kept = self.kept[lead + dim]
            if kept is not None and tensor.shape[dim] == self.before[lead + dim]:
                tensor = tensor.index_select(dim, kept.to(tensor.device))
        if self.columns is not None and tensor.ndim == len(self.before):
            if tensor.shape[1] != self.before[1]:
                return tensor
            rows = self.columns.to(tensor.device)
            if tensor.shape[0] == 1:
                tensor = tensor.expand(rows.shape[0], *tensor.shape[1:])
            index = rows.reshape(*rows.shape, *(1,) * (tensor.ndim - 2))
            tensor = tensor.gather(1, index.expand(*rows.shape, *tensor.shape[2:]))
        return tensor.clone()


def cuts_of(solution: Solution) -> Mapping[str, Cut]:
    """Return the cut of each parameter and buffer that loses something.

    Args:
        solution: what goes.
    """
    found: dict[str, Cut] = {}
    for name, flow in solution.trace.roots.items():
        plain = attrs.evolve(flow, layers=tuple(x for x in flow.layers if len(varying(x)) < 2))
        kept = list(solution.kept_indices(plain))
        columns = None
        for layer in flow.layers:
            if len(varying(layer)) == 2 and bool(solution.of(layer).any()):
                rows = layer.reshape(layer.shape[:2])
                if kept[0] is not None:
                    rows = rows[kept[0]]
                stays = ~solution.of(rows)
                width = int(stays[0].sum())
                columns = stays.nonzero()[:, 1].view(rows.shape[0], width)
        after = [
            size if positions is None else positions.numel()
            for size, positions in zip(flow.shape, kept, strict=True)
        ]
        if columns is not None:
            after[1] = columns.shape[1]
        if tuple(after) != flow.shape:
            found[name] = Cut(name, flow.shape, tuple(after), tuple(kept), columns)
    return found


def parameter_count(shape: tuple[int, ...]) -> int:
    """Return how many elements a shape has.

    Args:
        shape: the shape.
    """
    return int(torch.Size(shape).numel())
