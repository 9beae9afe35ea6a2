"""Solving for the labels that are removed under all constraints, and the resulting cuts."""

from __future__ import annotations

from collections.abc import Mapping

import attrs
from torch import Tensor

from tersely.engine.state.cutting import Cut
from tersely.shrinking.graph.enforcing import enforce
from tersely.shrinking.graph.flow import Trace
from tersely.shrinking.graph.labels import varying
from tersely.shrinking.graph.solution import Solution


def solve(trace: Trace, *, round_to: int = 1, pinned: Mapping[int, str] | None = None) -> Solution:
    """Remove as many masked labels as all constraints allow.

    Args:
        trace: the result of the walk.
        round_to: the row and column counts of weights that lose some remain multiples of this.
        pinned: labels that stay -> the reason.
    """
    solution = Solution(trace, pinned or {})
    while True:
        changed = False
        for constraint in trace.labels.constraints:
            changed |= enforce(solution, constraint)
        if not changed:
            changed = _fill(solution)
        if not changed and round_to > 1:
            changed = _round(solution, round_to)
        if not changed:
            return solution


def _fill(solution: Solution) -> bool:
    """Keep one position of every tensor that would be empty."""
    changed = False
    for name, flow in solution.trace.roots.items():
        for layer in flow.layers:
            gone = solution.of(layer)
            if bool(gone.all()) and layer.numel() > 1:
                changed |= _keep_best(solution, layer.reshape(-1), 1, f"one has to stay of {name}")
    return changed


def _round(solution: Solution, multiple: int) -> bool:
    for name, flow in solution.trace.roots.items():
        for layer in flow.layers:
            if len(varying(layer)) != 1:
                continue
            gone = solution.of(layer).reshape(-1)
            left = gone.numel() - int(gone.sum())
            missing = min(-left % multiple, int(gone.sum()))
            if missing:
                why = f"round_to={multiple} keeps it for {name}"
                return _keep_best(solution, layer.reshape(-1)[gone], 1, why)
    return False


def _keep_best(solution: Solution, going: Tensor, count: int, why: str) -> bool:
    weight = solution.weight[solution.component[going]]
    order = weight.argsort(descending=True, stable=True)
    return solution.keep(going[order[:count]], why)


def cuts_of(solution: Solution) -> dict[str, Cut]:
    """Return the cuts of parameters and buffers.

    Args:
        solution: the labels that are removed.
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
