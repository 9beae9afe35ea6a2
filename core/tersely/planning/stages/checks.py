"""What only the whole plan can show: requests that contradict, and links to the teacher."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from torch import nn

from tersely.arithmetic.blocks import count_blocks, resolve_size
from tersely.arithmetic.numbered import Numbering
from tersely.contracts.target_plan import TargetPlan
from tersely.planning.fusing.fusion import check_fusions
from tersely.planning.groups.aligning import check_aligns
from tersely.planning.groups.counted_budgets import check_counted, is_budgeted
from tersely.planning.groups.grouping import check_groups
from tersely.planning.plan import Plan
from tersely.planning.stages.draft import Draft, and_more
from tersely.planning.targets.biases import check_biases
from tersely.planning.targets.losses import check_losses, needs_teacher
from tersely.planning.targets.one_block_short import blocks_just_missed
from tersely.planning.targets.owners import find_tensor
from tersely.planning.targets.pattern import pattern_problems


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
    quantization = [group for group in alike.values() if group[0].method == "quantization"]
    distillation = [group for group in alike.values() if group[0].method == "distillation"]
    check_aligns([one for group in pruning if group[0].align is not None for one in group], draft)
    check_groups([one for group in pruning if group[0].pruning.is_grouped for one in group], draft)
    ranked = [group for group in pruning if group[0].align is None]
    check_counted([one for group in ranked if is_budgeted(group[0]) for one in group], draft)
    for group in pruning:
        _check_requests(group, draft)
        _check_ratio(group, draft)
    _check_shrinks(plan, draft)
    check_fusions(plan, draft)
    derived = [group for group in quantization if group[0].quantization.is_accumulated]
    check_biases([one for group in derived for one in group], plan, draft)
    taught = [target for group in distillation for target in group]
    _check_links(taught, draft, teacher)
    check_losses(taught, draft, draft.universe.modules[0])


def _check_shrinks(plan: Plan, draft: Draft) -> None:
    for number, stage in enumerate(plan.recipe.stages):
        if stage.shrink is None:
            continue
        own = [one for one in plan.targets if one.stage == number and one.align is None]
        if own and not any(_may_mask_slices(one) for one in own):
            draft.blame(
                stage.path,
                None,
                "shrink removes whole rows and columns, and none of its targets "
                f"({own[0].name}{and_more(len(own) - 1)}) is masked by them; use granularity: "
                "out_channel (or in_channel), or an algorithm that prunes channels, such as "
                "l1_norm",
            )


def _may_mask_slices(target: TargetPlan) -> bool:
    if target.kind not in ("parameter", "buffer"):
        return False
    if target.blocks is None or target.shape is None:
        return True
    size = resolve_size(target.blocks.size, target.shape)
    if isinstance(size, Numbering):
        return any(size.has_slices(dim) for dim in range(min(len(size), _ROWS_AND_COLUMNS)))
    return any(
        all(size[one] == length for one, length in enumerate(target.shape) if one != dim)
        for dim in range(min(len(size), _ROWS_AND_COLUMNS))
    )


_ROWS_AND_COLUMNS = 2


def _check_requests(alike: Sequence[TargetPlan], draft: Draft) -> None:
    first = alike[0]
    if _is_idle(first):
        draft.hints.append(
            f"{first.origin.path}: {first.name}{and_more(len(alike) - 1)}: no sparse_ratio, "
            "sparse_threshold or align, so nothing of it will be masked"
        )
    if first.blocks is None or (
        first.blocks.keep is None
        and first.pruning.internal_metric_block == 1
        and first.pruning.dependency_parts == 1
    ):
        return
    # Targets with these settings have blocks of their own, one object for each shape.
    shapes: dict[int, list[TargetPlan]] = {}
    for target in alike:
        shapes.setdefault(id(target.blocks), []).append(target)
    for group in shapes.values():
        for problem in _problems_of_blocks(group[0]):
            for target in group:
                draft.blame(target.origin.path, target.name, problem)


def _check_ratio(alike: Sequence[TargetPlan], draft: Draft) -> None:
    draft.hints.extend(
        f"{targets[0].origin.path}: {targets[0].name}{and_more(len(targets) - 1)}: {remark}"
        for remark, targets in blocks_just_missed(alike).items()
    )


def _is_idle(target: TargetPlan) -> bool:
    setting = target.pruning
    if target.blocks is not None and target.blocks.keep is not None:
        return False
    asked = (setting.sparse_ratio, setting.sparse_threshold, setting.align)
    return all(one is None for one in asked) and not setting.is_grouped


def _problems_of_blocks(target: TargetPlan) -> Iterator[str]:
    setting = target.pruning
    yield from _divisor_problem(target, "internal_metric_block", setting.internal_metric_block)
    yield from _divisor_problem(target, "dependency_parts", setting.dependency_parts)
    yield from pattern_problems(setting, target.blocks)


def _divisor_problem(target: TargetPlan, key: str, runs: int) -> Iterator[str]:
    if runs == 1 or target.blocks is None or target.shape is None:
        return
    if target.blocks.scope is not None:
        yield (
            f"{key} {runs} has no meaning with granularity {target.pruning.granularity!r}, which "
            "counts the ratio in scopes of its own; remove one of the two"
        )
        return
    count = math.prod(count_blocks(target.blocks.size, target.shape))
    if count % runs:
        kind = "runs" if key == "internal_metric_block" else "parts"
        yield f"{key} {runs} does not divide its {count} blocks into equal {kind}"


def _check_links(targets: Sequence[TargetPlan], draft: Draft, teacher: nn.Module | None) -> None:
    if teacher is None:
        return
    modules = dict(teacher.named_modules(remove_duplicate=False))
    for target in targets:
        setting = target.distillation
        if not needs_teacher(target):
            continue
        is_default = setting.links is None
        default = " (the default link is the module's own name)" if is_default else ""
        for one in setting.links_of(target.module):
            if one not in modules:
                near = draft.suggest(one, modules)
                hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
                found = f"link {one!r} is not a module of the teacher{default}{hint}"
                draft.blame(target.origin.path, target.name, found)
            elif target.kind in ("parameter", "buffer") and not _has(modules[one], target.target):
                found = (
                    f"link {one!r} of the teacher is a {type(modules[one]).__name__} without "
                    f"{target.target!r}; link a module that has it"
                )
                draft.blame(target.origin.path, target.name, found)


def _has(module: nn.Module, name: str) -> bool:
    try:
        return find_tensor(module, name) is not None
    except KeyError:
        return False
