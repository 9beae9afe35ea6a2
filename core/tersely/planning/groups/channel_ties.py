"""Which pruning targets share output channels, and the keys that tie them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from tersely.arithmetic.blocks import channel_blocks, count_blocks
from tersely.contracts.target_plan import TargetPlan
from tersely.contracts.tracer import DependencyTracer, SharedChannels
from tersely.errors import BrokenPluginError, PlanError, TerselyError
from tersely.json_value import Json
from tersely.planning.groups.grouping import DEPENDENCY, Shared, first_by_value, stated
from tersely.planning.groups.regroup import Tie
from tersely.registry.collect import describe
from tersely.registry.implementation import load_implementation
from tersely.registry.kinds import TRACER
from tersely.registry.record import Registration
from tersely.registry.registry import registry

DEFAULT_TRACER = "exported_graph"

_REQUESTS: tuple[Shared, ...] = ("sparse_ratio", "sparse_threshold")


def tracer_record(name: str | None = None) -> Registration:
    """Return the tracer of a name.

    Args:
        name: its name, or None for the usual one.

    Raises:
        UnknownPluginError: no installed plugin provides it.
    """
    tracers = registry().tracers
    return tracers.record(name or tracers.official(DEFAULT_TRACER))


def trace_channels(
    model: nn.Module, example_inputs: Any, *, parameters: tuple[str, ...], record: Registration
) -> Sequence[SharedChannels]:
    """Return which parameters share output channels.

    Args:
        model: the model, which is not touched.
        example_inputs: what to run it with.
        parameters: names as in ``named_parameters()``.
        record: the tracer.

    Raises:
        PlanError: the model cannot be traced.
        BrokenPluginError: the tracer fails.
    """
    if not parameters:
        return ()
    head = f"tracer {record.descriptor.name!r} of {record.title} is broken"
    named = {"plugin": record.descriptor.name, "distribution": record.distribution}
    implementation: Callable[..., Any] = load_implementation(TRACER, record)
    try:
        tracer: DependencyTracer = implementation()
        found = tracer.trace(model, example_inputs, parameters=parameters)
        placed = [name for shared in found for name in shared.parameters]
    except TerselyError:
        raise
    except Exception as error:  # foreign code
        raise BrokenPluginError(f"{head}: trace() raised {describe(error)}", **named) from error
    if sorted(placed) != sorted(parameters):
        raise BrokenPluginError(
            f"{head}: trace() has to place each of {', '.join(parameters)} once, but it placed "
            f"{', '.join(placed) or 'none'}",
            **named,
        )
    return found


def is_of_channels(target: TargetPlan) -> bool:
    """Tell whether a pruning target decides on its own output channels.

    Args:
        target: the target.
    """
    if target.kind != "parameter" or target.shape is None or target.blocks is None:
        return False
    if target.align is not None:
        return False
    rank = len(target.shape)
    return rank > 0 and target.blocks == channel_blocks(rank, min(target.output_dim, rank - 1))


def ties_of(
    found: Sequence[SharedChannels], targets: Mapping[str, TargetPlan], *, taken: set[Json]
) -> tuple[dict[str, Tie], str | None]:
    """Return the keys that each target needs for the channels that it shares.

    Args:
        found: what the tracer found.
        targets: the targets by full name.
        taken: the ids that are in use; those that are made up are added.

    Returns:
        The ties by full name, and what no key can express, or None.

    Raises:
        PlanError: targets that share channels ask for different things; one sentence for each.
    """
    ties: dict[str, Tie] = {}
    problems: list[str] = []
    loose: list[str] = []
    for shared in found:
        members = _requested([targets[name] for name in shared.parameters])
        problems += _contradictions(members, shared)
        own = [one.pruning.runs for one in members]
        runs = math.lcm(shared.runs, *own)
        group = _group_id(members, taken)
        taken.add(group)
        for member in members:
            ties[member.name] = Tie(group, runs, shared.cutting_of(member.name))
        if shared.is_tied_to_itself:
            loose += [f"{one.name} (internal_metric_block {runs})" for one in members]
    if problems:
        raise PlanError(problems)
    remark = None
    if loose:
        remark = (
            f"{', '.join(loose)}: several output channels of one weight belong together, as in a "
            "packed projection of query, key and value, which no key can express; "
            "internal_metric_block keeps its parts equally long, but may remove different channels "
            "of each; use separate projections, or leave it out with exclude_op_names"
        )
    return ties, remark


def _requested(members: Sequence[TargetPlan]) -> Sequence[TargetPlan]:
    # A target that asks for nothing is not pruned, and must not be because it has a partner.
    asking = [one for one in members if any(stated(one, key) is not None for key in _REQUESTS)]
    return asking or members


def _group_id(members: Sequence[TargetPlan], taken: set[Json]) -> Json:
    for member in members:
        own = member.pruning.dependency_group_id
        if own is not None:
            return own
    if len(members) == 1:
        return None
    first = members[0]
    name = f"channels_of_{first.module or first.target}"
    return next(
        spelling
        for spelling in (name, *(f"{name}_{count}" for count in range(2, len(taken) + 3)))
        if spelling not in taken
    )


def _contradictions(members: Sequence[TargetPlan], shared: SharedChannels) -> list[str]:
    problems = []
    for key in (*_REQUESTS, DEPENDENCY):
        given = first_by_value(key, members)
        if len(given) > 1:
            shown = " and ".join(
                f"{value} ({one.name}, {one.origin})" for value, one in given.items()
            )
            problems.append(
                f"{_listed(members)} share their output channels and are pruned at the same "
                f"positions, so they need one {key}; found {shown}"
            )
    counts = {_count(member, shared): member for member in members}
    if len(counts) > 1:
        shown = " and ".join(f"{count} ({one.name})" for count, one in counts.items())
        problems.append(
            f"{_listed(members)} share their output channels, but not their number of blocks: "
            f"found {shown}; leave one of them out with exclude_op_names"
        )
    return problems


def _count(target: TargetPlan, shared: SharedChannels) -> int:
    assert target.blocks is not None  # targets without are left out before
    assert target.shape is not None  # as above
    cutting = shared.cutting_of(target.name)
    channels = math.prod(count_blocks(target.blocks.size, target.shape))
    return channels // (cutting.parts * cutting.rows)


def _listed(members: Sequence[TargetPlan]) -> str:
    return " and ".join(member.name for member in members)
