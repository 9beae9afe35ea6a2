"""Cuts: what is taken out of one tensor, applied to whatever belongs to it."""

from __future__ import annotations

import attrs
from torch import Tensor

from tersely.engine.saver import Parts, Saved
from tersely.json_value import Json


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
                return tensor.clone()
            rows = self.columns.to(tensor.device)
            if tensor.shape[0] == 1:
                tensor = tensor.expand(rows.shape[0], *tensor.shape[1:])
            index = rows.reshape(*rows.shape, *(1,) * (tensor.ndim - 2))
            tensor = tensor.gather(1, index.expand(*rows.shape, *tensor.shape[2:]))
        return tensor.clone()

    def of_any(self, tensor: Tensor) -> Tensor | None:
        """Return what stays of a tensor that belongs to this one, or None when that is unknown.

        Known are one number, the tensor's own shape or one that broadcasts to it, one number a
        row, and numbers or a square matrix over all columns.
        """
        shape = tuple(tensor.shape)
        if tensor.numel() == 1:
            return tensor.clone()
        same = zip(shape, self.before, strict=False)
        if len(shape) == len(self.before) and all(a in (1, b) for a, b in same):
            return self(tensor)
        rows = self.kept[0] if self.kept else None
        if len(shape) == 1 and shape[0] == self.before[0]:
            return tensor.clone() if rows is None else tensor[rows.to(tensor.device)]
        width = 1
        for size in self.before[1:]:
            width *= size
        columns = self.kept[1] if len(self.before) == 2 else None
        if self.columns is None and set(shape) == {width} and len(shape) < 3:
            if self.after[1:] == self.before[1:]:
                return tensor.clone()
            if columns is not None:
                for dim in range(tensor.ndim):
                    tensor = tensor.index_select(dim, columns.to(tensor.device))
                return tensor.clone()
        return None

    def to_dict(self) -> dict[str, Json]:
        """Return the cut as JSON data."""
        return {
            "name": self.name,
            "before": list(self.before),
            "after": list(self.after),
            "kept": [None if one is None else one.tolist() for one in self.kept],
            "columns": None if self.columns is None else self.columns.tolist(),
        }


def cut_parts(saved: Saved, cuts: dict[str, Cut]) -> tuple[Saved, tuple[str, ...]]:
    """Cut an engine's saved tensors.

    Args:
        saved: the state of an engine.
        cuts: parameter or buffer -> its cut.

    Returns:
        The state of the same engine with the small model, and ``kind of target`` of each tensor
        for which no cut is known.
    """
    parts: Parts = {}
    unknown = []
    for (kind, name), tensors in saved.parts.items():
        cut = cuts.get(name)
        if cut is None:
            parts[kind, name] = tensors
            continue
        found = {part: cut.of_any(tensor) for part, tensor in tensors.items()}
        if all(tensor is not None for tensor in found.values()):
            parts[kind, name] = {part: one for part, one in found.items() if one is not None}
        elif kind != "observed":  # what was observed is seen again by the next calibration
            unknown.append(f"{kind} of {name}")
    return Saved(parts, dict(saved.data)), tuple(unknown)
