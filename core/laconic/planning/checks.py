"""What only the whole plan can show: aligns, groups, links and requests that contradict."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import nn

from laconic.blocks import count_blocks
from laconic.document.suggest import nearest
from laconic.planning.draft import Draft
from laconic.planning.fusion import check_fusions
from laconic.planning.plan import Plan, TargetPlan

_REQUESTS = ("sparse_ratio", "sparse_threshold")


def check_plan(plan: Plan, draft: Draft, teacher: nn.Module | None) -> None:
    """Add every contradiction of a plan to the draft's problems.

    Args:
        plan: the plan without contradictions known so far.
        draft: where problems and hints are collected.
        teacher: the teacher for links, or None to leave them unchecked.
    """
    # A large model has many targets and few settings, so settings are looked at first.
    alike: dict[int, list[TargetPlan]] = {}
    for target in plan.targets:
        alike.setdefault(id(target.setting), []).append(target)
    pruning = [group for group in alike.values() if group[0].method == "pruning"]
    distillation = [group for group in alike.values() if group[0].method == "distillation"]
    _check_aligns(_having("align", pruning), draft)
    for key in ("global_group_id", "dependency_group_id"):
        _check_groups(key, _having(key, pruning), draft)
    for group in pruning:
        _check_requests(group, draft)
    check_fusions(plan, draft)
    _check_links([target for group in distillation for target in group], draft, teacher)


def _having(key: str, alike: Sequence[Sequence[TargetPlan]]) -> list[TargetPlan]:
    return [
        target
        for group in alike
        if group[0].setting.get(key) is not None
        for target in group
    ]


def align_source(target: TargetPlan, draft: Draft) -> TargetPlan | None:
    """Return the planned target that another one aligns with, or None when there is none.

    Args:
        target: a pruning target with ``align``.
        draft: the plan it belongs to.
    """
    align = target.setting["align"]
    module = align.get("module_name")
    return draft.find(
        "pruning", target.module if module is None else module, align["target_name"]
    )


def _check_aligns(targets: Sequence[TargetPlan], draft: Draft) -> None:
    for target in targets:
        chain = [target]
        while chain[-1].setting.get("align") is not None:
            source = align_source(chain[-1], draft)
            if source is None:
                if chain[-1] is target:
                    draft.problems.append(_missing_source(target, draft))
                break
            if source in chain[-1:] or any(source is one for one in chain):
                if source is target:
                    names = " -> ".join(one.name for one in [*chain, source])
                    draft.problems.append(
                        f"{target.origin.path}: {target.name}: align goes in a circle: {names}"
                    )
                break
            chain.append(source)
        else:
            _check_dims(target, align_source(target, draft), draft)


def _missing_source(target: TargetPlan, draft: Draft) -> str:
    align = target.setting["align"]
    module = target.module if align.get("module_name") is None else align["module_name"]
    place = f"{target.origin.path}: {target.name}: it is aligned with"
    source = f"{module}.{align['target_name']}" if module else align["target_name"]
    if module not in draft.universe.index:
        near = nearest(module, draft.universe.names)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        return f"{place} {source}, but the model has no module {module!r}{hint}"
    return (
        f"{place} {source}, which no entry prunes; add it to an entry's targets, or leave "
        f"{target.target!r} out with target_names"
    )


def _check_dims(target: TargetPlan, source: TargetPlan | None, draft: Draft) -> None:
    if source is None or source.shape is None:
        return
    rank = len(source.shape)
    wrong = [dim for dim in target.setting["align"]["dims"] if not -rank <= dim < rank]
    if wrong:
        draft.problems.append(
            f"{target.origin.path}: {target.name}: align.dims {wrong} is outside {source.name}, "
            f"which has {rank} dimensions"
        )
        return
    _check_lengths(target, source, draft)


def _check_lengths(target: TargetPlan, source: TargetPlan, draft: Draft) -> None:
    if target.shape is None or source.shape is None:
        return
    dims = target.setting["align"]["dims"]
    place = f"{target.origin.path}: {target.name}: align.dims {dims} of {source.name}"
    if len(dims) > len(target.shape):
        draft.problems.append(
            f"{place} covers {len(dims)} dimensions, the target has {len(target.shape)}; leave "
            f"some out"
        )
        return
    position = draft.universe.canonical(source.module) or 0
    groups = getattr(draft.universe.modules[position], "groups", 1)
    for dim, length in zip(dims, target.shape, strict=False):
        # A grouped or transposed convolution's weight counts the channels of one group.
        found = source.shape[dim]
        if found not in (1, length) and found * groups != length:
            draft.problems.append(
                f"{place} has {found} positions, the target has {length}; choose align.dims so "
                f"that both have the same length"
            )


def _check_groups(key: str, targets: Sequence[TargetPlan], draft: Draft) -> None:
    groups: dict[tuple[str, object], list[TargetPlan]] = {}
    for target in targets:
        group = target.setting[key]
        if target.setting.get("align") is None:
            groups.setdefault((type(group).__name__, group), []).append(target)
    for (_, group), members in groups.items():
        stages = {member.stage: member for member in members}
        if len(stages) > 1:
            names = " and ".join(member.name for member in stages.values())
            draft.problems.append(
                f"{key} {group!r}: its members must be in one stage, {names} are in two; importances "
                f"of two algorithms cannot be compared"
            )
        _check_equal_ratios(key, group, members, draft)
        if key == "dependency_group_id":
            _check_equal_blocks(group, members, draft)


def _check_equal_ratios(
    key: str, group: object, members: Sequence[TargetPlan], draft: Draft
) -> None:
    for request in _REQUESTS:
        values: dict[float, TargetPlan] = {}
        for member in members:
            value = member.setting.get(request)
            if value is not None:
                values.setdefault(float(value), member)
        if len(values) > 1:
            shown = ", ".join(f"{value:g} ({member.name})" for value, member in values.items())
            draft.problems.append(
                f"{key} {group!r}: its members must have one {request}, found {shown}"
            )
    if key == "global_group_id" and not any(
        member.setting.get(request) is not None for member in members for request in _REQUESTS
    ):
        draft.problems.append(
            f"{key} {group!r}: no member has a sparse_ratio, so the group has no budget; add it"
        )


def _check_equal_blocks(group: object, members: Sequence[TargetPlan], draft: Draft) -> None:
    counts: dict[int, TargetPlan] = {}
    for member in members:
        if member.blocks is not None and member.shape is not None:
            counts.setdefault(math.prod(count_blocks(member.blocks.size, member.shape)), member)
    if len(counts) > 1:
        shown = ", ".join(f"{count} ({member.name})" for count, member in counts.items())
        draft.problems.append(
            f"dependency_group_id {group!r}: its members must have the same number of blocks, "
            f"found {shown}; they are pruned at the same positions"
        )


def _check_requests(alike: Sequence[TargetPlan], draft: Draft) -> None:
    seen: set[int] = set()
    for target in alike:
        if id(target.blocks) not in seen:
            seen.add(id(target.blocks))
            _check_internal_blocks(target, draft)
            _check_pattern(target, draft)
    first = alike[0]
    if _is_idle(first):
        more = f" and {len(alike) - 1} more" if len(alike) > 1 else ""
        draft.hints.append(
            f"{first.origin.path}: {first.name}{more}: no sparse_ratio, sparse_threshold or align, "
            f"so nothing of it will be masked"
        )


def _is_idle(target: TargetPlan) -> bool:
    setting = target.setting
    if target.blocks is not None and target.blocks.keep is not None:
        return False
    asked = (*_REQUESTS, "align", "dependency_group_id")
    return all(setting.get(key) is None for key in asked)


def _check_internal_blocks(target: TargetPlan, draft: Draft) -> None:
    runs = target.setting.get("internal_metric_block")
    if runs is None or target.blocks is None or target.shape is None:
        return
    count = math.prod(count_blocks(target.blocks.size, target.shape))
    if count % runs:
        draft.problems.append(
            f"{target.origin.path}: {target.name}: internal_metric_block {runs} does not divide "
            f"its {count} blocks into equal runs"
        )


def _check_pattern(target: TargetPlan, draft: Draft) -> None:
    if target.blocks is None or target.blocks.keep is None or target.blocks.scope is None:
        return
    setting = target.setting
    scope = math.prod(value for value in target.blocks.scope if value > 0)
    ratio = 1 - target.blocks.keep / scope
    asked = setting.get("sparse_ratio")
    where = f"{target.origin.path}: {target.name}: granularity {setting.get('granularity')!r}"
    if asked is not None and not math.isclose(asked, ratio):
        draft.problems.append(
            f"{where} masks exactly {ratio:g}, but sparse_ratio is {asked:g}; remove sparse_ratio "
            f"or make them equal"
        )
    for key in ("sparse_threshold", "global_group_id", "dependency_group_id"):
        if setting.get(key) is not None:
            draft.problems.append(
                f"{where} fixes how many are kept among neighbours, so {key!r} has no meaning; "
                f"remove it"
            )


def _check_links(
    targets: Sequence[TargetPlan], draft: Draft, teacher: nn.Module | None
) -> None:
    if teacher is None:
        return
    names = {name for name, _ in teacher.named_modules(remove_duplicate=False)}
    for target in targets:
        link = target.setting.get("link")
        links = [target.module] if link is None else [link] if isinstance(link, str) else link
        for one in links:
            if one not in names:
                near = nearest(one, sorted(names))
                hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
                default = " (the default link is the module's own name)" if link is None else ""
                draft.problems.append(
                    f"{target.origin.path}: {target.name}: link {one!r} is no module of the "
                    f"teacher{default}{hint}"
                )
