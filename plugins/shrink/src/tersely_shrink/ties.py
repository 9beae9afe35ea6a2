"""Groups parameters that share output channels, if they share all of them in one order."""

from __future__ import annotations

from collections.abc import Sequence

import tersely
from tersely_shrink.parameters import Found
from tersely_shrink.runs import Runs

_LISTED = 6


def tie(found: Sequence[Found], runs: Runs) -> list[tersely.SharedChannels]:
    """Group parameters by the channels they share.

    Args:
        found: the parameters with the classes of their channels.
        runs: what cuts channels into runs.

    Raises:
        PlanError: parameters share some channels only, or in another order; one sentence for each
            such group.
    """
    groups = _connected(found)
    problems = [
        _problem(group)
        for group in groups
        if any(member.classes != group[0].classes for member in group)
    ]
    if problems:
        raise tersely.PlanError(problems)
    counts = runs.of([group[0].classes for group in groups])
    return [
        tersely.SharedChannels(
            parameters=tuple(member.name for member in group),
            runs=count,
            is_tied_to_itself=len(set(group[0].classes)) < len(group[0].classes),
        )
        for group, count in zip(groups, counts, strict=True)
    ]


def _connected(found: Sequence[Found]) -> list[list[Found]]:
    """Parameters that share a channel, directly or through others, in their first order."""
    parents = list(range(len(found)))

    def root(one: int) -> int:
        while parents[one] != one:
            parents[one] = parents[parents[one]]
            one = parents[one]
        return one

    first: dict[int, int] = {}
    for number, member in enumerate(found):
        for one in dict.fromkeys(member.classes):
            low, high = sorted((root(first.setdefault(one, number)), root(number)))
            parents[high] = low
    groups: dict[int, list[Found]] = {}
    for number, member in enumerate(found):
        groups.setdefault(root(number), []).append(member)
    return list(groups.values())


def _problem(group: Sequence[Found]) -> str:
    listed = ", ".join(f"{one.name} ({len(one.classes)} channels)" for one in group[:_LISTED])
    more = f" and {len(group) - _LISTED} more" if len(group) > _LISTED else ""
    modules = ", ".join(one.name.rpartition(".")[0] for one in group[:_LISTED])
    return (
        f"{listed}{more} share some of their output channels, but not all of them in one order, "
        f"as after a concatenation or repeated heads; a dependency_group_id ties channel i of "
        f"each to channel i of all, so leave some of them out, with exclude_op_names: [{modules}]"
    )
