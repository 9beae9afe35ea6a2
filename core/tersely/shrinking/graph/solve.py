"""Which labels go, down to what all constraints allow, and the cuts that follow from them."""

from __future__ import annotations

from collections.abc import Mapping

import attrs
import torch
from torch import Tensor

from tersely.engine.cutting import Cut
from tersely.shrinking.graph.flow import Flow, Trace
from tersely.shrinking.graph.labels import Either, EqualParts, Grid, Labels, Whole, varying


class Solution:
    """Which labels are removed (mutable until the last constraint holds).

    Attributes:
        component: label -> the smallest label that it is tied to.
        gone: component -> whether it goes, bool, shape (labels,).
        why: component -> why it stays although it is masked.
    """

    def __init__(self, trace: Trace, pinned: Mapping[int, str]) -> None:
        self.trace = trace
        labels = trace.labels
        for label, reason in pinned.items():
            labels.pin(torch.tensor([label]), reason)
        self.component = labels.components()
        self.weight = _importance(trace, self.component)
        self.why: dict[int, str] = {}
        self.gone = torch.zeros(labels.count, dtype=torch.bool)
        self.masked = _masked(trace, self.component)
        self.gone[self.masked] = True
        self.gone[self.component[0]] = False  # what is pinned may be masked too
        # A component whose masked labels are reached only through these follows from them.
        count = -1
        while count != (count := int(self.gone.sum())):
            self._follow(labels)
            self.gone[self.component[0]] = False

    def _follow(self, labels: Labels) -> None:
        """Let what stands for others start from them."""
        for constraint in labels.constraints:
            if isinstance(constraint, Whole):
                all_gone = self.of(constraint.parts).all(1)
                self.gone[self.component[constraint.whole[all_gone]]] = True
            elif isinstance(constraint, Either):
                any_gone = self.of(constraint.sources).any(1)
                self.gone[self.component[constraint.joined[any_gone]]] = True

    def of(self, labels: Tensor) -> Tensor:
        """Return whether labels go: bool, their shape."""
        return self.gone[self.component[labels]]

    def keep(self, labels: Tensor, why: str) -> bool:
        """Let labels stay; return whether one of them was going."""
        components = torch.unique(self.component[labels])
        components = components[self.gone[components]]
        for component in components.tolist():
            self.why.setdefault(component, why)
        self.gone[components] = False
        return bool(components.numel())

    def lost(self, flow: Flow) -> Tensor:
        """Return which elements of a tensor go: bool, broadcasts to it."""
        lost = torch.zeros((1,) * flow.ndim, dtype=torch.bool)
        for layer in flow.layers:
            lost = lost | self.of(layer)
        return lost

    def kept_indices(self, flow: Flow) -> tuple[Tensor | None, ...]:
        """Return the positions that stay along each dimension, None where all do."""
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


def solve(trace: Trace, *, round_to: int = 1, pinned: Mapping[int, str] | None = None) -> Solution:
    """Remove as much of what is masked as all constraints allow.

    Args:
        trace: what the walk found.
        round_to: the number of rows and columns of every weight that loses some stays a multiple.
        pinned: labels that stay, and why.
    """
    solution = Solution(trace, pinned or {})
    while True:
        changed = False
        for constraint in trace.labels.constraints:
            changed |= _enforce(solution, constraint)
        if not changed:
            changed = _fill(solution)
        if not changed and round_to > 1:
            changed = _round(solution, round_to)
        if not changed:
            return solution


def _enforce(solution: Solution, constraint: object) -> bool:
    if isinstance(constraint, Whole):
        whole, parts = solution.of(constraint.whole), solution.of(constraint.parts).all(1)
        why = "only whole heads or slices can go"
        changed = solution.keep(constraint.whole[whole & ~parts], why)
        return solution.keep(constraint.parts[parts & ~whole], why) or changed
    if isinstance(constraint, Either):
        joined, any_gone = solution.of(constraint.joined), solution.of(constraint.sources).any(1)
        why = "the other dimension of a combined cut stays"
        changed = solution.keep(constraint.joined[joined & ~any_gone], why)
        return solution.keep(constraint.sources[any_gone & ~joined], why) or changed
    if isinstance(constraint, Grid):
        return _enforce_grid(solution, constraint)
    if isinstance(constraint, EqualParts):
        return _enforce_parts(solution, constraint)
    return False


def _enforce_grid(solution: Solution, constraint: Grid) -> bool:
    gone = solution.of(constraint.layer)
    dims = varying(constraint.layer)
    whole = torch.zeros_like(gone)
    for dim in dims:
        others = [d for d in range(gone.ndim) if d != dim]
        whole |= gone.all(dim=others, keepdim=True) if others else gone
    stray = gone & ~whole
    return bool(stray.any()) and solution.keep(
        constraint.layer[stray], "a view needs whole slices (whole heads) to go"
    )


def _enforce_parts(solution: Solution, constraint: EqualParts) -> bool:
    gone = solution.of(constraint.parts)
    counts = gone.sum(1)
    if constraint.may_vanish:
        counts = torch.where(gone.all(1), gone.shape[1], counts)
    allowed = int(min(counts.min().item(), gone.shape[1] - 1))
    for part, row, count in zip(constraint.parts, gone, counts.tolist(), strict=True):
        if count > allowed:
            going = part[row]
            order = solution.weight[solution.component[going]].argsort(descending=True, stable=True)
            return solution.keep(
                going[order[: count - allowed]], "every part has to lose equally many"
            )
    return False


def _fill(solution: Solution) -> bool:
    """Keep one position of whatever would be empty."""
    changed = False
    for flow in solution.trace.roots.values():
        for layer in flow.layers:
            gone = solution.of(layer)
            if bool(gone.all()) and layer.numel() > 1:
                changed |= _keep_best(solution, layer.reshape(-1), 1, "one has to stay")
    return changed


def _round(solution: Solution, multiple: int) -> bool:
    for flow in solution.trace.roots.values():
        for layer in flow.layers:
            if len(varying(layer)) != 1:
                continue
            gone = solution.of(layer).reshape(-1)
            left = gone.numel() - int(gone.sum())
            missing = min(-left % multiple, int(gone.sum()))
            if missing:
                why = f"round_to={multiple} keeps it"
                return _keep_best(solution, layer.reshape(-1)[gone], 1, why)
    return False


def _keep_best(solution: Solution, going: Tensor, count: int, why: str) -> bool:
    weight = solution.weight[solution.component[going]]
    order = weight.argsort(descending=True, stable=True)
    return solution.keep(going[order[:count]], why)


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


def _masked(trace: Trace, component: Tensor) -> Tensor:
    """Components of which a slice of a weight is masked whole."""
    found = [torch.zeros(0, dtype=torch.int64)]
    for name, flow in trace.roots.items():
        kept = trace.source.kept(name)
        if kept is None:
            continue
        for layer in flow.layers:
            found.append(component[layer[slices_lost(kept, layer)]])
    unique: Tensor = torch.unique(torch.cat(found))
    return unique


def slices_lost(kept: Tensor, layer: Tensor) -> Tensor:
    """Return where a mask keeps nothing of what carries a label: bool, the layer's shape.

    Args:
        kept: bool, the tensor's shape.
        layer: labels of the tensor.
    """
    others = [dim for dim in range(layer.ndim) if layer.shape[dim] == 1 and kept.shape[dim] > 1]
    lost = (kept.any(dim=others, keepdim=True) if others else kept).logical_not()
    return lost.expand(layer.shape)


def cuts_of(solution: Solution) -> dict[str, Cut]:
    """Return the cut of each parameter and buffer that loses something.

    Args:
        solution: what goes.
    """
    found: dict[str, Cut] = {}
    for name, flow in solution.trace.roots.items():
        plain = attrs.evolve(flow, layers=tuple(x for x in flow.layers if len(varying(x)) <= 1))
        kept = list(solution.kept_indices(plain))
        columns = None
        for layer in flow.layers:
            if len(varying(layer)) > 1 and bool(solution.of(layer).any()):
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
