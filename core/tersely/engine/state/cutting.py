"""Cuts: what is taken out of one tensor, applied to whatever belongs to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import attrs
from torch import Tensor

from tersely.arithmetic.numbered import renumber
from tersely.engine.state.saver import Parts, Saved
from tersely.engine.targets.binding import BoundTarget
from tersely.errors import SessionError
from tersely.json_value import Json

FixedShapes: TypeAlias = "Mapping[tuple[str, str], str]"
"""What keeps its shape: (module, ``input``, ``output`` or the name of a parameter) -> why."""


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
        columns = self.kept[1] if len(self.before[1:]) == 1 else None
        if self.columns is None and shape in ((width,), (width, width)):
            if self.after[1:] == self.before[1:]:
                return tensor.clone()
            if columns is not None:
                for dim in range(tensor.ndim):
                    tensor = tensor.index_select(dim, columns.to(tensor.device))
                return tensor.clone()
        return None

    def of_blocks(self, tensor: Tensor, numbers: Tensor) -> Tensor | None:
        """Return what stays of one value for each numbered block; None where it is something else.

        Args:
            tensor: what belongs to the tensor that is cut.
            numbers: the number of each element's block, of the shape before.
        """
        if tensor.ndim != 1 or len(tensor) != int(numbers.max()) + 1:
            return None
        _, left = renumber(self(numbers))
        return tensor[left.to(tensor.device)]

    def is_ambiguous(self, tensor: Tensor) -> bool:
        """Tell whether a vector may belong to the rows or to the columns of a square matrix.

        Args:
            tensor: belongs to the tensor that is cut.
        """
        return tensor.ndim == 1 and self.before[:1] == self.before[1:]

    def of_inputs(self, tensor: Tensor, dim: int) -> Tensor | None:
        """Return what stays of one number for each input channel, or None when that is unknown.

        Args:
            tensor: shape (inputs,), or (experts, inputs) where dimension 0 is experts.
            dim: the dimension of input channels.
        """
        dims = (dim,) if tensor.ndim == 1 else (0, dim)
        if self.columns is not None or tensor.shape != tuple(self.before[one] for one in dims):
            return None
        found = tensor.clone()
        for place, one in enumerate(dims):
            kept = self.kept[one]
            found = found if kept is None else found.index_select(place, kept.to(found.device))
        return found

    def to_dict(self) -> dict[str, Json]:
        """Return the cut as JSON data."""
        return {
            "name": self.name,
            "before": list(self.before),
            "after": list(self.after),
            "kept": [None if one is None else one.tolist() for one in self.kept],
            "columns": None if self.columns is None else self.columns.tolist(),
        }


def cut_saved(
    saved: Saved, cuts: Mapping[str, Cut], *, numbered: Mapping[str, Tensor] | None = None
) -> Saved:
    """Cut an engine's saved tensors; what was observed and cannot be cut is left out.

    Args:
        saved: the state of an engine.
        cuts: parameter or buffer -> its cut.
        numbered: parameter or buffer -> the number of each element's block, of those that have
            numbered blocks.

    Raises:
        SessionError: a tensor has a shape that does not follow its target's.
    """
    parts: Parts = {}
    for (kind, name), tensors in saved.parts.items():
        cut = cuts.get(name)
        if cut is None:
            parts[kind, name] = tensors
            continue
        found = {
            part: _of_part(cut, tensor, (numbered or {}).get(name), is_observed=kind == "observed")
            for part, tensor in tensors.items()
        }
        known = {part: tensor for part, tensor in found.items() if tensor is not None}
        if len(known) == len(found):
            parts[kind, name] = known
        elif kind != "observed":  # what was observed is seen again by the next calibration
            part = next(part for part, tensor in found.items() if tensor is None)
            raise SessionError(
                f"shrink() cannot cut the {part or kind} of {name}, which has shape "
                f"{list(tensors[part].shape)} for a target of {list(cut.before)}; use a "
                "granularity that follows its channels, or finish that stage before shrinking",
                target=name,
            )
    return Saved(parts, dict(saved.data))


def _of_part(
    cut: Cut, tensor: Tensor, numbers: Tensor | None, *, is_observed: bool
) -> Tensor | None:
    if numbers is not None and tensor.ndim == 1 and len(cut.before) > 1:
        # A value for each block, and what was observed might be one for each row or column.
        return None if is_observed else cut.of_blocks(tensor, numbers)
    return None if is_observed and cut.is_ambiguous(tensor) else cut.of_any(tensor)


def move_along(saved: Saved, name: str, kinds: tuple[str, str], now: Tensor) -> None:
    """Let saved values of a tensor follow what it took over, and its previous values with them.

    Args:
        saved: a cut state; changed.
        name: the target.
        kinds: the kind of its values, and of its values before an algorithm changed them.
        now: its values now.
    """
    values, original = (saved.one(kind, name) for kind in kinds)
    if values is None or original is None:
        return
    change = now - values.to(now.device)
    saved.parts[kinds[0], name] = {"": now.clone()}
    saved.parts[kinds[1], name] = {"": original + change.to(original.device)}


def place_of(bound: BoundTarget) -> tuple[str, str]:
    """Return the place of a target among what keeps its shape.

    Args:
        bound: the target.
    """
    return bound.plan.module, bound.plan.kind if bound.is_activation else bound.plan.target
