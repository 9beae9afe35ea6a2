"""Enforcing constraints: the labels that each one keeps, and the reasons."""

from __future__ import annotations

import torch
from torch import Tensor

from tersely.shrinking.graph.labels import (
    Constraint,
    Copies,
    Count,
    Either,
    EqualParts,
    Grid,
    Whole,
    varying,
)
from tersely.shrinking.graph.solution import Solution


def enforce(solution: Solution, constraint: Constraint) -> bool:
    """Keep the labels that a constraint demands; return whether any of them was removed before.

    Args:
        solution: the labels that are removed.
        constraint: the constraint.
    """
    if isinstance(constraint, Whole):
        return _enforce_whole(solution, constraint)
    if isinstance(constraint, Copies):
        same = Whole(constraint.sources, constraint.copies, constraint.place)
        return _enforce_whole(solution, same)
    if isinstance(constraint, Count):
        return _enforce_count(solution, constraint)
    if isinstance(constraint, Either):
        joined, any_gone = solution.of(constraint.joined), solution.of(constraint.sources).any(1)
        why = "the other dimension of a combined cut stays"
        parts = constraint.sources[joined & ~any_gone].reshape(-1)
        because = _because(solution, why, constraint.place, parts)
        changed = solution.keep(constraint.joined[joined & ~any_gone], because)
        torn = any_gone & ~joined
        because = _because(solution, why, constraint.place, constraint.joined[torn])
        return solution.keep(constraint.sources[torn], because) or changed
    if isinstance(constraint, Grid):
        return _enforce_grid(solution, constraint)
    return _enforce_parts(solution, constraint)


def _because(solution: Solution, why: str, place: str, staying: Tensor) -> str:
    """Return why something has to stay, with the reason of the first label that stays, if known."""
    why = f"{why} ({place})"
    reason = solution.reason(int(staying[0])) if staying.numel() else None
    if reason is None or reason.startswith(why):
        return why
    return f"{why}, and part of one stays: {reason.rpartition('part of one stays: ')[2]}"


def _masked(solution: Solution, labels: Tensor) -> Tensor:
    """The labels that are masked or were removed; others would stay anyway."""
    was_going = [int(one) in solution.why for one in solution.component[labels].reshape(-1)]
    found = torch.tensor(was_going, dtype=torch.bool).reshape(labels.shape)
    return labels[solution.masked[labels] | solution.failed[labels] | found]


def _enforce_whole(solution: Solution, constraint: Whole) -> bool:
    parts = solution.of(constraint.parts)
    whole, all_gone = solution.of(constraint.whole), parts.all(1)
    why = "only whole heads or slices can go"
    changed = False
    for index in (whole & ~all_gone).nonzero().reshape(-1).tolist():
        staying = _masked(solution, constraint.parts[index][~parts[index]])
        reason = _because(solution, why, constraint.place, staying)
        changed |= solution.keep(constraint.whole[index : index + 1], reason)
    for index in (all_gone & ~whole).nonzero().reshape(-1).tolist():
        staying = _masked(solution, constraint.whole[index : index + 1])
        reason = _because(solution, why, constraint.place, staying)
        changed |= solution.keep(constraint.parts[index], reason)
    return changed


def _enforce_grid(solution: Solution, constraint: Grid) -> bool:
    gone = solution.of(constraint.layer)
    dims = varying(constraint.layer)
    whole = torch.zeros_like(gone)
    for dim in dims:
        others = [d for d in range(gone.ndim) if d != dim]
        whole |= gone.all(dim=others, keepdim=True) if others else gone
    stray = gone & ~whole
    if not bool(stray.any()):
        return False
    why = "a view needs whole slices (whole heads) to go"
    staying = _masked(solution, constraint.layer[~gone])
    return solution.keep(
        constraint.layer[stray], _because(solution, why, constraint.place, staying)
    )


def _enforce_parts(solution: Solution, constraint: EqualParts) -> bool:
    gone = solution.of(constraint.parts)
    counts = gone.sum(1)
    whole = gone.all(1) & constraint.may_vanish
    if bool(whole.all()):
        return False
    allowed = int(min(counts[~whole].min().item(), gone.shape[1] - 1))
    for part, row, count in zip(
        constraint.parts[~whole], gone[~whole], counts[~whole].tolist(), strict=True
    ):
        if count > allowed:
            least = int(counts.argmin())
            staying = _masked(solution, constraint.parts[least][~gone[least]])
            why = "every part has to lose equally many"
            going = part[row]
            order = solution.weight[solution.component[going]].argsort(descending=True, stable=True)
            return solution.keep(
                going[order[: count - allowed]],
                _because(solution, why, constraint.place, staying),
            )
    return False


def _enforce_count(solution: Solution, constraint: Count) -> bool:
    lost = solution.lost_of_each(constraint.parts)
    places = solution.of(constraint.positions)
    going = constraint.positions[places]
    why = f"every part has to lose equally many ({constraint.place})"
    if len(going) > lost:
        return solution.keep(going[: len(going) - lost], why)
    if len(going) == lost:
        return False
    because = _because(solution, why, constraint.place, constraint.positions[~places])
    gone = solution.of(constraint.parts)
    changed = False
    for part, row in zip(constraint.parts, gone, strict=True):
        if not bool(row.all()):
            weight = solution.weight[solution.component[part[row]]]
            order = weight.argsort(descending=True, stable=True)
            changed |= solution.keep(part[row][order[: int(row.sum()) - len(going)]], because)
    return changed
