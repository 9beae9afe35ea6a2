"""Parameters and their output channels: those that are tied, and their blocks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import attrs
from torch import nn

from tersely.contracts.tracer import ChannelBlocks, SharedChannels
from tersely.errors import PlanError
from tersely.planning.targets.templates import Templates
from tersely.registry.registry import registry
from tersely.shrinking.graph.flow import Trace
from tersely.shrinking.graph.labels import varying
from tersely.shrinking.graph.program import Program
from tersely.shrinking.graph.runs import Runs
from tersely.shrinking.graph.ties import Ties

_LISTED = 6
_WAY_OUT = "leave it out with exclude_op_names, or write dependency_group_id by hand"


@attrs.frozen(eq=False)
class Member:
    """A parameter and its output channels.

    Attributes:
        name: its name as in ``named_parameters()``.
        classes: the class of each of its output channels; channels of one class are removed
            together.
    """

    name: str
    classes: tuple[int, ...]


def members_of(
    model: nn.Module,
    program: Program,
    trace: Trace,
    labels: Ties,
    names: Mapping[str, str],
) -> tuple[Member, ...]:
    """Return parameters with the classes of their output channels.

    Args:
        model: the model.
        program: its operators.
        trace: the result of a walk over them.
        labels: the labels of that walk.
        names: the parameters to place -> their names in the program.

    Raises:
        PlanError: the ties are not known; one sentence for each reason.
    """
    component = labels.components()
    doubts = {int(component[label]): reason for label, reason in reversed(labels.doubts.items())}
    read = {program.parameters[node] for node in program.parameters if node.users}
    templates = Templates(registry().module_settings())
    found: list[Member] = []
    problems: dict[str, list[str]] = {}
    for name, known in names.items():
        module = model.get_submodule(name.rpartition(".")[0])
        if known not in read:
            problems.setdefault(_absence(module), []).append(name)
            continue
        flow = trace.roots[known]
        dim = min(templates.setting_of(type(module)).output_dim, flow.ndim - 1)
        own = [layer for layer in flow.layers if varying(layer) == (dim,)]
        if not own:  # one channel alone
            found.append(Member(name, (-len(found) - 1,)))
            continue
        classes = component[own[0].reshape(-1)].tolist()
        reason = next((doubts[one] for one in classes if one in doubts), None)
        if reason is not None:
            problem = f"the channels cannot be followed: {reason}"
            problems.setdefault(problem, []).append(name)
            continue
        found.append(Member(name, tuple(classes)))
    if problems:
        unread = [name for names in problems.values() for name in names]
        raise PlanError(
            [f"{', '.join(names)}: {reason}; {_WAY_OUT}" for reason, names in problems.items()],
            target=unread[0] if len(unread) == 1 else None,
        )
    return tuple(found)


def _absence(module: nn.Module) -> str:
    return (
        f"the example_inputs do not lead through {type(module).__name__}, so that it is not known "
        "what its channels meet"
    )


def share(members: Sequence[Member], runs: Runs) -> list[SharedChannels]:
    """Group parameters by the channels that they share.

    Args:
        members: the parameters.
        runs: the partitions of channels into runs.

    Raises:
        PlanError: parameters share only some channels, or in another order, and cannot be divided
            into the same blocks; one sentence for each such group.
    """
    groups = _connected(members)
    cuttings = [cut_alike([member.classes for member in group]) for group in groups]
    problems = [
        _problem(group) for group, found in zip(groups, cuttings, strict=True) if found is None
    ]
    if problems:
        raise PlanError(problems)
    known = [
        (group, found) for group, found in zip(groups, cuttings, strict=True) if found is not None
    ]
    counts = runs.of([_blocks(group, found) for group, found in known])
    return [
        SharedChannels(
            parameters=tuple(member.name for member in group),
            runs=count,
            cuttings=() if all(one == ChannelBlocks() for one in found) else found,
        )
        for (group, found), count in zip(known, counts, strict=True)
    ]


def _blocks(group: Sequence[Member], cuttings: Sequence[ChannelBlocks]) -> dict[int, int]:
    """The block of each class."""
    return {
        one: cutting.block_of(place, len(member.classes))
        for member, cutting in zip(group, cuttings, strict=True)
        for place, one in enumerate(member.classes)
    }


def _connected(members: Sequence[Member]) -> list[list[Member]]:
    """Parameters that share a channel, directly or through others, in their first order."""
    parents = list(range(len(members)))

    def root(one: int) -> int:
        while parents[one] != one:
            parents[one] = parents[parents[one]]
            one = parents[one]
        return one

    first: dict[int, int] = {}
    for number, member in enumerate(members):
        for one in dict.fromkeys(member.classes):
            low, high = sorted((root(first.setdefault(one, number)), root(number)))
            parents[high] = low
    groups: dict[int, list[Member]] = {}
    for number, member in enumerate(members):
        groups.setdefault(root(number), []).append(member)
    return list(groups.values())


def _problem(group: Sequence[Member]) -> str:
    listed = ", ".join(f"{one.name} ({len(one.classes)} channels)" for one in group[:_LISTED])
    more = f" and {len(group) - _LISTED} more" if len(group) > _LISTED else ""
    modules = ", ".join(one.name.rpartition(".")[0] for one in group[:_LISTED])
    return (
        f"{listed}{more} share some of their output channels, but not all of them in one order, "
        "as after a concatenation, and no equally many blocks of each go together; leave some of "
        f"them out, with exclude_op_names: [{modules}]"
    )


def cut_alike(members: Sequence[Sequence[int]]) -> tuple[ChannelBlocks, ...] | None:
    """Divide members into as many blocks as possible so that tied channels are in one block.

    Args:
        members: the class of each channel of each member; channels of one class are removed
            together.

    Returns:
        One division for each member, all with the same number of blocks; None if there would be at
        most one block.
    """
    is_plain = len(set(members[0])) == len(members[0])
    if is_plain and all(classes == members[0] for classes in members):
        return tuple(ChannelBlocks() for _ in members)
    smallest = min(len(classes) for classes in members)
    for has_parts in (False, True):  # whole heads rather than one position of each
        for blocks in range(smallest, 1, -1):
            if all(len(classes) % blocks == 0 for classes in members):
                found = _matching(members, blocks, {}, has_parts=has_parts)
                if found is not None:
                    return tuple(found)
    return None


def _matching(
    members: Sequence[Sequence[int]], blocks: int, known: Mapping[int, int], *, has_parts: bool
) -> list[ChannelBlocks] | None:
    """The divisions of the first members that match those of the others."""
    if not members:
        return []
    first, *rest = members
    for cutting in _cuttings(len(first) // blocks, has_parts=has_parts):
        places = dict(known)
        fits = all(
            places.setdefault(one, block) == block
            for one, block in ((c, cutting.block_of(i, len(first))) for i, c in enumerate(first))
        )
        others = _matching(rest, blocks, places, has_parts=has_parts) if fits else None
        if others is not None:
            return [cutting, *others]
    return None


def _cuttings(size: int, *, has_parts: bool) -> Iterator[ChannelBlocks]:
    """All ways to combine this many channels into one block; neighbours first."""
    for parts in range(1, size + 1 if has_parts else 2):
        if size % parts == 0:
            yield ChannelBlocks(parts, size // parts)
