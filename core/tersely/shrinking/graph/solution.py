"""Solution: the labels that are removed, and why others stay."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import torch
from torch import Tensor

from tersely.shrinking.graph.flow import Flow, Trace
from tersely.shrinking.graph.labels import Copies, Count, Either, Labels, Whole, varying


class Solution:
    """The labels that are removed (mutable until all constraints hold).

    Attributes:
        component: label -> the smallest label that it is tied to.
        masked: label -> whether a slice of a weight is masked whole there, bool.
        failed: label -> whether it stays since the proof failed without it, bool.
        gone: component -> whether it is removed, bool, shape (labels,).
        why: component -> why it stays although it is masked.
    """

    def __init__(self, trace: Trace, pinned: Mapping[int, str]) -> None:
        self.trace = trace
        labels = trace.labels
        self.failed = torch.zeros(labels.count, dtype=torch.bool)
        self.failed[list(pinned)] = True
        for label, reason in pinned.items():
            labels.pin(torch.tensor([label]), reason)
        self.component = labels.components()
        self.why: dict[int, str] = {}
        self.gone = torch.zeros(labels.count, dtype=torch.bool)
        self.masked = _masked(trace)
        self.gone[self.component[self.masked]] = True
        self.gone[self.component[0]] = False  # pinned labels may be masked, too
        # A component whose masked labels are reached only through these follows from them.
        count = -1
        while count != (count := int(self.gone.sum())):
            self._follow(labels)
            self.gone[self.component[0]] = False

    @cached_property
    def weight(self) -> Tensor:
        """Sum of squares of the weights, masked or not, of each component, shape (labels,)."""
        return _importance(self.trace, self.component)

    def _follow(self, labels: Labels) -> None:
        """Initialize labels that depend on others."""
        for constraint in labels.constraints:
            if isinstance(constraint, Whole):
                all_gone = self.of(constraint.parts).all(1)
                self.gone[self.component[constraint.whole[all_gone]]] = True
            elif isinstance(constraint, Either):
                any_gone = self.of(constraint.sources).any(1)
                self.gone[self.component[constraint.joined[any_gone]]] = True
            elif isinstance(constraint, Copies):
                sources, copies = self.of(constraint.sources), self.of(constraint.copies)
                self.gone[self.component[constraint.copies[sources]]] = True
                self.gone[self.component[constraint.sources[copies.all(1)]]] = True
            elif isinstance(constraint, Count):
                last = constraint.positions.flip(0)[: self.lost_of_each(constraint.parts)]
                self.gone[self.component[last]] = True

    def lost_of_each(self, parts: Tensor) -> int:
        """Return the least number of positions lost by parts that are not removed whole.

        Args:
            parts: labels, shape (n, k).
        """
        gone = self.of(parts)
        counts = gone[~gone.all(1)].sum(1)
        return int(counts.min()) if counts.numel() else 0

    def of(self, labels: Tensor) -> Tensor:
        """Return whether labels are removed: bool, their shape."""
        return self.gone[self.component[labels]]

    def keep(self, labels: Tensor, why: str) -> bool:
        """Keep labels; return whether one of them was removed before."""
        components = torch.unique(self.component[labels])
        components = components[self.gone[components]]
        for component in components.tolist():
            self.why.setdefault(component, why)
        self.gone[components] = False
        return bool(components.numel())

    def reason(self, label: int) -> str | None:
        """Return why a label stays, if that is known.

        Args:
            label: the label.
        """
        numbers, reasons = self._numbered
        own = int(numbers[label]) or int(self._met[1][label])
        noted = reasons[own - 1] if own else None
        return self.why.get(int(self.component[label])) or noted

    @cached_property
    def _numbered(self) -> tuple[Tensor, tuple[str, ...]]:
        return self.trace.labels.numbered()

    @cached_property
    def _met(self) -> tuple[Tensor, Tensor]:
        """Components without pinning, and the first reason in each."""
        together = self.trace.labels.components(pinned=False)
        numbers = self._numbered[0]
        known = numbers.nonzero().reshape(-1)
        first = torch.full_like(together, len(together))
        first.scatter_reduce_(0, together[known], known, "amin")
        found = torch.cat([numbers, numbers.new_zeros(1)])[first]
        return together, found[together]

    def met(self, label: int, labels: Tensor) -> Tensor:
        """Return which labels are tied to one, directly or indirectly: bool, their shape.

        Args:
            label: the label.
            labels: others.
        """
        return self._met[0][labels] == self._met[0][label]

    def lost(self, flow: Flow) -> Tensor:
        """Return which elements of a tensor are removed: bool, broadcasts to it."""
        lost = torch.zeros((1,) * flow.ndim, dtype=torch.bool)
        for layer in flow.layers:
            lost = lost | self.of(layer)
        return lost

    def kept_indices(self, flow: Flow) -> tuple[Tensor | None, ...]:
        """Return the positions that stay along each dimension; None for all."""
        if all(len(varying(layer)) == 1 for layer in flow.layers):
            return self._kept_along_each(flow)
        lost = self.lost(flow)
        found: list[Tensor | None] = []
        for dim in range(flow.ndim):
            if lost.shape[dim] == 1:
                found.append(None)
                continue
            others = [d for d in range(flow.ndim) if d != dim]
            stays = ~(lost.all(dim=others) if others else lost)
            found.append(None if bool(stays.all()) else stays.nonzero().reshape(-1))
        return tuple(found)

    def _kept_along_each(self, flow: Flow) -> tuple[Tensor | None, ...]:
        """The same where each layer depends on one dimension."""
        found: list[Tensor | None] = [None] * flow.ndim
        for dim, size in enumerate(flow.shape):
            own = [layer.reshape(-1) for layer in flow.layers if layer.shape[dim] > 1]
            stays = torch.ones(size, dtype=torch.bool)
            for layer in own:
                stays &= ~self.of(layer)
            if own and not bool(stays.all()):
                found[dim] = stays.nonzero().reshape(-1)
        return tuple(found)


def _importance(trace: Trace, component: Tensor) -> Tensor:
    """Sum of squares of the weights, masked or not, of each component."""
    weight = torch.zeros(trace.labels.count, dtype=torch.float64)
    for name, flow in trace.roots.items():
        values = trace.source.dense(name)
        if not values.is_floating_point() or flow.ndim <= 1:
            continue
        for layer in flow.layers:
            if len(varying(layer)) == 1:
                (dim,) = varying(layer)
                others = [d for d in range(flow.ndim) if d != dim]
                squares = torch.linalg.vector_norm(values, dim=others).to(torch.float64) ** 2
                weight.scatter_add_(0, component[layer.reshape(-1)], squares.cpu())
    return weight


def _masked(trace: Trace) -> Tensor:
    """The labels for which a slice of a weight is masked whole: bool, shape (labels,)."""
    found = torch.zeros(trace.labels.count, dtype=torch.bool)
    for name, flow in trace.roots.items():
        kept = trace.source.kept(name)
        if kept is None:
            continue
        for layer in flow.layers:
            found[layer[slices_lost(kept, layer)]] = True
    return found


def slices_lost(kept: Tensor, layer: Tensor) -> Tensor:
    """Return the labels of a layer whose elements are all masked: bool, on the CPU, its shape.

    Args:
        kept: bool, the tensor's shape.
        layer: labels of the tensor.
    """
    others = [dim for dim in range(layer.ndim) if layer.shape[dim] == 1 and kept.shape[dim] > 1]
    # The maximum of bytes is several times faster than any() of booleans.
    some = kept.view(torch.uint8).amax(others, keepdim=True).bool() if others else kept
    lost = some.logical_not().cpu()
    return lost.expand(layer.shape)
