"""Finds which pruning targets share output channels and ties them in the config list."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from tersely.arithmetic.blocks import channel_blocks, count_blocks
from tersely.contracts.target_plan import TargetPlan
from tersely.contracts.tracer import DependencyTracer, SharedChannels
from tersely.document.load import parse_config_list
from tersely.document.recipe import Entry, Recipe, Stage
from tersely.errors import BrokenPluginError, PlanError, TerselyError
from tersely.json_value import Json
from tersely.planning.draft import Draft
from tersely.planning.grouping import DEPENDENCY, Shared, first_by_value, stated
from tersely.planning.owners import Owners
from tersely.planning.plan import Plan
from tersely.planning.regroup import Tie, regroup
from tersely.planning.resolve import PlanWarning, warn_of_remarks
from tersely.planning.selection import Universe
from tersely.planning.stage import plan_stage
from tersely.planning.templates import Templates
from tersely.registry.collect import describe
from tersely.registry.descriptors import PrunerInfo
from tersely.registry.implementation import load_implementation
from tersely.registry.kinds import TRACER
from tersely.registry.record import Registration
from tersely.registry.registry import registry

DEFAULT_TRACER = "torch_pruning"

_ANY_STRUCTURED = PrunerInfo(
    name="any_structured",
    implementation="tersely.contracts.pruner:Pruner",
    default_granularity="output_channel",
)
"""Stands for the algorithm, which the caller has not named yet."""

_REQUESTS: tuple[Shared, ...] = ("sparse_ratio", "sparse_threshold")


def auto_dependency_groups(
    model: nn.Module,
    config_list: Sequence[Mapping[str, Json]],
    example_inputs: Any,
    *,
    tracer: str | None = None,
) -> list[dict[str, Json]]:
    """Return a config list in which targets that share output channels are pruned together.

    Targets whose channels meet in an addition or a multiplication, or pass through a depthwise
    convolution, get one ``dependency_group_id``. ``internal_metric_block`` is set where groups of
    a convolution or heads of an attention have to stay equally large. Everything else that the
    config list says stays in effect; ids that it gives already are kept.

    Args:
        model: the model, which is not touched.
        config_list: a pruning config list. ``granularity: default`` is taken to mean output
            channels; targets of another granularity are left as they are.
        example_inputs: what to run the model with: a tensor, a tuple or list of arguments, or a
            mapping of keyword arguments, on the model's device.
        tracer: the name of the dependency tracer; by default that of ``torch_pruning``.

    Returns:
        A new config list; the one given is not changed.

    Raises:
        ConfigError: the config list is wrong.
        PlanError: it does not fit the model, the model cannot be traced, or targets share channels
            in a way that no key can express.
        UnknownPluginError: no installed plugin provides the tracer.
        BrokenPluginError: the tracer fails.
    """
    # First of all, so that a missing plugin is told before anything else is wrong.
    record = registry().tracers.record(tracer or registry().tracers.official(DEFAULT_TRACER))
    entries = parse_config_list("pruning", list(config_list))
    resolved, universe = _plan(model, entries)
    warn_of_remarks(resolved)
    targets = {one.name: one for one in resolved if _is_of_channels(one)}
    found = _trace(model, example_inputs, parameters=tuple(targets), record=record)
    ties = _ties(found, targets, taken={one.pruning.dependency_group_id for one in resolved})
    return regroup(config_list, entries=entries, resolved=resolved, universe=universe, ties=ties)


def _trace(
    model: nn.Module, example_inputs: Any, *, parameters: tuple[str, ...], record: Registration
) -> Sequence[SharedChannels]:
    if not parameters:
        return ()
    head = f"tracer {record.descriptor.name!r} of {record.title} is broken"
    implementation: Callable[..., Any] = load_implementation(TRACER, record)
    try:
        tracer: DependencyTracer = implementation()
        found = tracer.trace(model, example_inputs, parameters=parameters)
        placed = [name for shared in found for name in shared.parameters]
    except TerselyError:
        raise
    except Exception as error:  # foreign code
        raise BrokenPluginError(f"{head}: trace() raised {describe(error)}") from error
    if sorted(placed) != sorted(parameters):
        raise BrokenPluginError(
            f"{head}: trace() has to place each of {', '.join(parameters)} once, but it placed "
            f"{', '.join(placed) or 'none'}"
        )
    return found


def _plan(model: nn.Module, entries: tuple[Entry, ...]) -> tuple[Plan, Universe]:
    universe = Universe.of(model)
    recipe = Recipe(stages=(Stage(method="pruning", path="", entries=entries),))
    draft = Draft(universe, Owners(universe), Templates(registry().module_settings()), recipe)
    plan_stage(draft, 0, info=_ANY_STRUCTURED)
    resolved = draft.finish()
    if draft.problems:
        raise PlanError(draft.problems)
    return resolved, universe


def _is_of_channels(target: TargetPlan) -> bool:
    if target.kind != "parameter" or target.shape is None or target.blocks is None:
        return False
    if target.align is not None:
        return False
    rank = len(target.shape)
    return rank > 0 and target.blocks == channel_blocks(rank, min(target.output_dim, rank - 1))


def _ties(
    found: Sequence[SharedChannels], targets: Mapping[str, TargetPlan], *, taken: set[Json]
) -> dict[str, Tie]:
    ties: dict[str, Tie] = {}
    problems: list[str] = []
    loose: list[str] = []
    for shared in found:
        members = _requested([targets[name] for name in shared.parameters])
        problems += _contradictions(members)
        own = [one.pruning.internal_metric_block for one in members]
        runs = math.lcm(shared.runs, *own)
        group = _group_id(members, taken)
        taken.add(group)
        for member in members:
            ties[member.name] = Tie(group, runs)
        if shared.is_tied_to_itself:
            loose += [f"{one.name} (internal_metric_block {runs})" for one in members]
    if problems:
        raise PlanError(problems)
    if loose:
        warnings.warn(
            f"{', '.join(loose)}: several output channels of one weight belong together, as in a "
            f"packed projection of query, key and value, and no key can say so; "
            f"internal_metric_block keeps its parts equally long, but which channels go may differ "
            f"between them; use separate projections, or leave it out with exclude_op_names",
            PlanWarning,
            stacklevel=3,
        )
    return ties


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


def _contradictions(members: Sequence[TargetPlan]) -> list[str]:
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
    counts = {_count(member): member for member in members}
    if len(counts) > 1:
        shown = " and ".join(f"{count} ({one.name})" for count, one in counts.items())
        problems.append(
            f"{_listed(members)} share their output channels, but not their number of blocks: "
            f"found {shown}; leave one of them out with exclude_op_names"
        )
    return problems


def _count(target: TargetPlan) -> int:
    assert target.blocks is not None  # targets without are left out before
    assert target.shape is not None  # as above
    return math.prod(count_blocks(target.blocks.size, target.shape))


def _listed(members: Sequence[TargetPlan]) -> str:
    return " and ".join(member.name for member in members)
