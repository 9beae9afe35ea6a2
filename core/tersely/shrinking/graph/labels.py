"""Labels: the elements of all tensors that are removed together, and the reasons why some stay.

A tensor has layers; a layer is an int64 tensor that broadcasts to it (size 1 along dimensions on
which it does not depend). An element is removed when the label of any of its layers is removed;
label 0 never is.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import torch
from torch import Tensor

Layer = Tensor
"""int64; broadcasts to the tensor that it labels."""


@attrs.frozen(eq=False)
class Whole:
    """``whole[i]`` is removed exactly if all of ``parts[i]`` are.

    Attributes:
        whole: labels, shape (n,).
        parts: labels, shape (n, k).
        place: the operator and the module that demand it.
    """

    whole: Tensor
    parts: Tensor
    place: str = ""


@attrs.frozen(eq=False)
class Either:
    """``joined[i]`` is removed exactly if one of ``sources[i]`` is.

    Attributes:
        joined: labels, shape (n,).
        sources: labels, shape (n, k).
        place: the operator and the module that demand it.
    """

    joined: Tensor
    sources: Tensor
    place: str = ""


@attrs.frozen(eq=False)
class Grid:
    """A layer only loses whole slices along its dimensions, so that it stays a tensor.

    Attributes:
        layer: labels.
        place: the operator and the module that demand it.
    """

    layer: Layer
    place: str = ""


@attrs.frozen(eq=False)
class EqualParts:
    """Every part loses equally many elements, or all of them.

    Attributes:
        parts: labels, shape (parts, size).
        may_vanish: whether a part may be removed whole.
        place: the operator and the module that demand it.
    """

    parts: Tensor
    may_vanish: bool = True
    place: str = ""


@attrs.frozen(eq=False)
class Copies:
    """Copies of ``sources[i]`` are removed one by one; it is removed if all of them are.

    Attributes:
        sources: labels, shape (n,).
        copies: labels, shape (n, k).
        place: the operator and the module that demand it.
    """

    sources: Tensor
    copies: Tensor
    place: str = ""


@attrs.frozen(eq=False)
class Count:
    """As many positions are removed as of every part that is not removed whole.

    Attributes:
        positions: labels, shape (k,); the last ones are removed.
        parts: labels, shape (n, k).
        place: the operator and the module that demand it.
    """

    positions: Tensor
    parts: Tensor
    place: str = ""


_FEW = 1 << 13
"""The most pairs of labels for which repetitions are kept."""

Constraint = Whole | Either | Grid | EqualParts | Copies | Count


class Labels:
    """Creates labels and collects ties and constraints (mutable: filled in one walk).

    Attributes:
        count: the number of labels so far, including the pinned label 0.
        constraints: in the order in which they were found.
        unlabelled: parameters and buffers without labels.
        place: the current operator and module of the walk, for reasons; otherwise empty.
    """

    def __init__(self) -> None:
        self.count = 1
        self.unlabelled: frozenset[str] = frozenset()
        self.constraints: list[Constraint] = []
        self.place = ""
        self._ties: list[Tensor] = []
        # A large model has hundreds of thousands of labels: too many for an entry each.
        self._reasons: dict[str, int] = {}
        self._noted: list[tuple[Tensor, int]] = []

    def new(self, shape: Sequence[int]) -> Layer:
        """Return new labels for every element of a shape."""
        size = 1
        for length in shape:
            size *= length
        layer = torch.arange(self.count, self.count + size).view(*shape)
        self.count += size
        return layer

    def tie(self, first: Layer, second: Layer) -> None:
        """Tie two layers elementwise, after broadcasting."""
        first, second = spread([first, second])
        pairs = torch.stack([first.reshape(-1), second.reshape(-1)], 1)
        pairs = pairs[pairs[:, 0] != pairs[:, 1]]
        if bool((kept := (pairs == 0).any(1)).any()):
            self._note(pairs[kept].amax(1), "it meets something that cannot be cut")
        # Removing repetitions takes longer than keeping a few.
        self._ties.append(torch.unique(pairs, dim=0) if len(pairs) > _FEW else pairs)

    def tie_along(self, layer: Layer, dims: Sequence[int]) -> Layer:
        """Tie all elements along dimensions; return the layer without them (size 1)."""
        for dim in dims:
            if layer.shape[dim] > 1:
                first = layer.narrow(dim, 0, 1)
                self.tie(layer, first)
                layer = first
        return layer

    def pin(self, layer: Layer, reason: str) -> None:
        """Keep elements for a reason."""
        found = self._note(layer, reason)
        self._ties.append(torch.stack([found, torch.zeros_like(found)], 1))

    def _note(self, layer: Layer, reason: str) -> Tensor:
        """Record why elements stay, and where; return their labels, each once."""
        placed = f"{reason} ({self.place})" if self.place else reason
        found: Tensor = torch.unique(layer)
        found = found[found != 0]
        self._noted.append((found, self._reasons.setdefault(placed, len(self._reasons) + 1)))
        return found

    def numbered(self) -> tuple[Tensor, tuple[str, ...]]:
        """Return for every label the first known reason why it stays.

        Returns:
            For each label the number of its reason, from 1, or 0, shape (count,); and the reasons.
        """
        found = torch.zeros(self.count, dtype=torch.int64)
        for labels, number in reversed(self._noted):
            found[labels] = number
        return found, tuple(self._reasons)

    def constrain(self, constraint: Constraint) -> None:
        """Add a constraint at the current place of the walk."""
        self.constraints.append(attrs.evolve(constraint, place=self.place))

    def doubt(self, layer: Layer, reason: str) -> None:
        """Keep elements whose ties are not known, for a reason."""
        self.pin(layer, reason)

    def whole(self, layer: Layer, dims: Sequence[int]) -> Layer:
        """Return labels (size 1 along dims) that are removed if everything along the dims is."""
        moved = [dim for dim in dims if layer.shape[dim] > 1]
        if not moved:
            return layer
        rest = [dim for dim in range(layer.ndim) if dim not in moved]
        parts = layer.permute(*rest, *moved).flatten(len(rest))
        shape = [1 if dim in moved else size for dim, size in enumerate(layer.shape)]
        whole = self.new(shape)
        width = parts.shape[-1]
        self.constrain(Whole(whole.reshape(-1), parts.reshape(-1, width)))
        return whole

    def joined(self, layers: Sequence[Layer]) -> Layer | None:
        """Return one layer that combines several of a tensor; None without any."""
        if len(layers) <= 1:
            return layers[0] if layers else None
        sources = torch.stack(spread(layers), -1)
        joined = self.new(sources.shape[:-1])
        self.constrain(Either(joined.reshape(-1), sources.reshape(-1, sources.shape[-1])))
        return joined

    def components(self, *, pinned: bool = True) -> Tensor:
        """Return for every label the smallest label that it is tied to, shape (count,).

        Args:
            pinned: whether pinned labels are tied to label 0, too.
        """
        parent = torch.arange(self.count)
        if not self._ties:
            return parent
        edges = torch.cat(self._ties)
        if not pinned:
            edges = edges[(edges != 0).all(1)]
        while True:
            left, right = parent[edges[:, 0]], parent[edges[:, 1]]
            low = torch.minimum(left, right)
            new = parent.clone()
            new.scatter_reduce_(0, left, low, "amin")
            new.scatter_reduce_(0, right, low, "amin")
            while not torch.equal(new, new[new]):
                new = new[new]
            if torch.equal(new, parent):
                return parent
            parent = new


def spread(layers: Sequence[Layer]) -> list[Layer]:
    """Return layers of one tensor, broadcast to a common shape.

    Args:
        layers: the layers.
    """
    ndim = max(layer.ndim for layer in layers)
    padded = [(1,) * (ndim - layer.ndim) + tuple(layer.shape) for layer in layers]
    shape = [max(sizes) for sizes in zip(*padded, strict=True)]
    return [layer.expand(shape) for layer in layers]


def are_alike(first: Layer, second: Layer) -> bool:
    """Tell whether the last dimensions of two layers broadcast.

    Args:
        first: a layer.
        second: another.
    """
    sizes = {first.shape[-1], second.shape[-1]}
    return len(sizes - {1}) <= 1


def varying(layer: Layer) -> tuple[int, ...]:
    """Return the dimensions on which a layer depends.

    Args:
        layer: the layer.
    """
    return tuple(dim for dim, size in enumerate(layer.shape) if size > 1)


def reduced(layer: Tensor) -> Tensor:
    """Return a layer or a constant with size 1 along every dimension on which it does not depend.

    Args:
        layer: labels, or float values, in which NaNs are equal.
    """
    for dim in range(layer.ndim):
        if layer.shape[dim] <= 1:
            continue
        first = layer.narrow(dim, 0, 1)
        if layer.stride(dim) == 0 or _is_same(layer, first):
            layer = first
    return layer.contiguous()


def _is_same(layer: Tensor, first: Tensor) -> bool:
    equal = layer == first
    if layer.is_floating_point():
        equal |= layer.isnan() & first.isnan()
    return bool(equal.all())
