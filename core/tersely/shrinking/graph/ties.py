"""Labels that only collect ties, independent of masks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from tersely.shrinking.graph.labels import Labels, Layer, spread, varying


class Ties(Labels):
    """Labels that record which channels belong together (mutable: filled in one walk).

    Reasons to keep a channel are not ties, so nothing is pinned here. Several layers of one tensor
    are tied, and so is everything that one position represents.

    Args:
        buffers: names of tensors that tie nothing, such as tables of positions that many layers
            read.

    Attributes:
        doubts: label -> why its ties are not known.
        sources: channels in the order in which a view cut them, shape (channels,).
    """

    def __init__(self, buffers: Iterable[str]) -> None:
        super().__init__()
        self.unlabelled = frozenset(buffers)
        self.doubts: dict[int, str] = {}
        self.sources: list[Layer] = []
        self._wholes: list[tuple[Layer, Layer]] = []

    def pin(self, layer: Layer, reason: str) -> None:
        """Do nothing: a label that stays is not a tie."""

    def doubt(self, layer: Layer, reason: str) -> None:
        """Record why the ties of some elements are not known."""
        for label in torch.unique(layer).tolist():
            self.doubts.setdefault(label, reason)

    def whole(self, layer: Layer, dims: Sequence[int]) -> Layer:
        """Return labels (size 1 along dims) that are tied to everything along dims.

        They go with nothing where all their own positions are one for another reason, as those of
        a head that is normalized: no such position ever goes in all heads.
        """
        if all(layer.shape[dim] == 1 for dim in dims):
            return layer
        found = self.new([1 if dim in dims else size for dim, size in enumerate(layer.shape)])
        self._wholes.append((found, layer))
        return found

    def components(self, *, pinned: bool = True) -> Tensor:
        """Return for every label the smallest label that it is tied to, shape (count,)."""
        together = super().components(pinned=pinned)
        if not self._wholes:
            return together
        for whole, parts in self._wholes:
            if not varying(whole) or not _are_one(together[parts], varying(whole)):
                self.tie(whole, parts)
        self._wholes.clear()
        return super().components(pinned=pinned)

    def joined(self, layers: Sequence[Layer]) -> Layer | None:
        """Tie several layers of a tensor, and return the first."""
        if not layers:
            return None
        first, *others = spread(layers)
        for other in others:
            self.tie(first, other)
        return first if others else layers[0]

    def columns(
        self, shapes: Sequence[Sequence[int]], layers: Sequence[Sequence[Layer]]
    ) -> list[list[Layer]]:
        """Return lists of one layer for each operand of an operator that puts them together.

        Args:
            shapes: the shape of each operand.
            layers: the layers of each.

        Returns:
            One list for each set of dimensions that some layer depends on; an operand without such
            a layer gets one of its own, so that its positions count.
        """
        signatures = sorted({varying(layer) for own in layers for layer in own})
        found = []
        for signature in signatures:
            column = []
            for shape, own in zip(shapes, layers, strict=True):
                layer = self.joined([one for one in own if varying(one) == signature])
                if layer is None:
                    sizes = [size if d in signature else 1 for d, size in enumerate(shape)]
                    layer = self.new(sizes)
                column.append(layer)
            found.append(column)
        return found

    def moved(self, before: Layer, after: Layer) -> bool:
        """Record what a view splits or merges; tell whether it splits channels.

        Channels that were cut into heads and merged in the same order may lose others in each head.
        Merged in another order, as by a channel shuffle, they only stay in order if all parts lose
        the same.

        Args:
            before: a layer of its operand.
            after: the same of its result.
        """
        was, now = varying(before), varying(after)
        if len(was) < len(now):
            self.sources.append(before.reshape(-1))
            return True
        is_merged = len(was) > len(now) and before.numel() == after.numel()
        if is_merged and not self._is_in_order(after, before.shape[was[-1]]):
            largest = max(was, key=lambda dim: (before.shape[dim], -dim))
            self.tie_along(before, [dim for dim in was if dim != largest])
        return False

    def _is_in_order(self, merged: Layer, length: int) -> bool:
        """Whether runs of a length are runs of what a view cut, so that order stays."""
        rows = merged.reshape(-1, length)
        for source in self.sources:
            place = torch.full((self.count,), -1)
            place[source] = torch.arange(source.numel())
            found = place[rows]
            steps = found - found[:, :1]
            if bool((found >= 0).all()) and bool((steps == torch.arange(length)).all()):
                return True
        return False


def _are_one(classes: Tensor, dims: Sequence[int]) -> bool:
    """Whether all positions along dimensions are of one class."""
    first = classes
    for dim in dims:
        first = first.narrow(dim, 0, 1)
    return bool((classes == first).all())
