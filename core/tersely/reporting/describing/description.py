"""What a session achieved against what its plan asked for: the rows and remarks of a report."""

from __future__ import annotations

import math
import warnings
from collections.abc import Collection, Iterable, Mapping

from torch import Tensor

from tersely.arithmetic.qparams import QParams
from tersely.contracts.settings import (
    DEFAULT_GRANULARITY,
    DistillationSetting,
)
from tersely.contracts.target_plan import TargetPlan
from tersely.json_value import Json
from tersely.planning.plan import Plan
from tersely.planning.remarks import fold_skipped
from tersely.reporting.describing.emptied import emptied_targets
from tersely.reporting.describing.expectation import (
    DependencyBounds,
    count_target_blocks,
    describe_request,
    is_missed,
    largest_block,
    requested_sparsity,
    rounding_slack,
    spell,
)
from tersely.reporting.describing.misses import (
    last_updates,
    may_have_missed,
    shared_group,
    unfinished_stages,
)
from tersely.reporting.describing.quantized_rows import (
    makes_integers,
    stored_qparams,
    with_quantization,
)
from tersely.reporting.printing.folded_names import fold_names
from tersely.reporting.report import Report, SparsityWarning
from tersely.reporting.reported import Reported
from tersely.reporting.rows import Moment, Remark, ReportRow
from tersely.storage.versions import loaded_versions


def describe_session(session: Reported, achieved: Mapping[str, Mapping[str, float]]) -> Report:
    """Build the report of a session as it is now.

    Args:
        session: an attached session; it is not changed.
        achieved: the masked fraction of every target that has a mask.
    """
    plan = session.plan
    history = tuple(_moments(session.history))
    unfinished = last_updates(plan, session.steps)
    growing = unfinished_stages(session)
    masks = _activation_masks(session)
    bounds = DependencyBounds(plan)
    scales = _scales(session)
    rows = tuple(
        _row(target, masks=masks, achieved=achieved, bounds=bounds, growing=growing)
        for target in plan
    )
    rows = tuple(
        with_quantization(row, target, plan, scales.get((target.module, target.target)))
        if target.method == "quantization"
        else row
        for target, row in zip(plan, rows, strict=True)
    )
    return Report(
        rows=rows,
        warnings=(
            *_misses(plan, rows),
            *_group_misses(plan, rows, growing),
            *_emptied(plan, rows, achieved),
        ),
        remarks=tuple(_remarks(session, rows, unfinished)),
        metrics=dict(session.metrics),
        history=history,
        shrinks=session.shrinks,
        recipe=plan.recipe.document,
        versions=loaded_versions(),
        model_elements=_model_elements(session),
    )


def warn_of_misses(session: Reported, achieved: Mapping[str, Mapping[str, float]]) -> None:
    """Warn of every request that was missed: what prunes nothing must not look like success.

    Args:
        session: a session that was just compressed.
        achieved: what `Session.sparsity` returns.
    """
    plan = session.plan
    if not may_have_missed(plan, achieved, unfinished=unfinished_stages(session)):
        return
    report = describe_session(session, achieved)
    # The session warns of these when they come about.
    emptied = emptied_targets(plan, achieved).values()
    missed = [text for text in report.warnings if text not in emptied]
    if missed:
        warnings.warn("\n".join(missed), SparsityWarning, stacklevel=3)


def _rectangle(target: TargetPlan) -> tuple[int, ...] | None:
    blocks = target.blocks
    return None if blocks is None or blocks.index is not None else blocks.size


def _row(
    target: TargetPlan,
    *,
    masks: Mapping[tuple[str, str], Tensor],
    achieved: Mapping[str, Mapping[str, float]],
    bounds: DependencyBounds,
    growing: Collection[int],
) -> ReportRow:
    mask = masks.get((target.module, target.target))
    shape = target.shape if mask is None else tuple(mask.shape)
    elements = None if shape is None else math.prod(shape)
    sparsity = None
    if target.method == "pruning":
        sparsity = achieved.get(target.module, {}).get(target.target)
    masked = None if sparsity is None or elements is None else round(sparsity * elements)
    requested = requested_sparsity(target, bounds)
    final = target.stage not in growing and requested is not None and bool(elements)
    return ReportRow(
        module=target.module,
        target=target.target,
        kind=target.kind,
        method=target.method,
        algorithm=target.algorithm,
        granularity=_granularity(target),
        blocks=_rectangle(target),
        shape=shape,
        elements=elements,
        masked=masked,
        request=describe_request(target),
        requested=requested,
        sparsity=sparsity,
        missed=final and is_missed(requested, sparsity, slack=rounding_slack(target, bounds)),
    )


def _granularity(target: TargetPlan) -> str:
    setting = target.setting
    if isinstance(setting, DistillationSetting):
        return ""
    takes_source_blocks = target.align is not None and setting.granularity == DEFAULT_GRANULARITY
    return "" if takes_source_blocks else spell(setting.granularity)


def _misses(plan: Plan, rows: Iterable[ReportRow]) -> Iterable[str]:
    for target, row in zip(plan, rows, strict=True):
        if not row.missed or row.requested is None:
            continue
        yield (
            f"{row.name}: asked for a sparsity of {row.requested:.4g}, got {row.sparsity:.4g} "
            f"({row.masked:,} of {row.elements:,} elements masked); {_advice(target, row)}"
        )


def _emptied(
    plan: Plan, rows: Iterable[ReportRow], achieved: Mapping[str, Mapping[str, float]]
) -> Iterable[str]:
    missed = {row.name for row in rows if row.missed}
    found = emptied_targets(plan, achieved)
    return (text for name, text in found.items() if name not in missed)


def _advice(target: TargetPlan, row: ReportRow) -> str:
    blocks = count_target_blocks(target)
    if row.sparsity == 0 and blocks is not None and math.floor((row.requested or 0) * blocks) == 0:
        return (
            f"it has {blocks} block{'' if blocks == 1 else 's'}, too few for that ratio: choose a "
            "finer granularity or a larger ratio"
        )
    return "call session.compress(), or session.step() until the algorithm has scores"


def _group_misses(plan: Plan, rows: Iterable[ReportRow], growing: Collection[int]) -> Iterable[str]:
    groups: dict[Json, list[tuple[TargetPlan, ReportRow]]] = {}
    for target, row in zip(plan, rows, strict=True):
        group = shared_group(target)
        if group is not None and target.stage not in growing and row.elements:
            groups.setdefault(group, []).append((target, row))
    for group, members in groups.items():
        elements = sum(row.elements or 0 for _, row in members)
        masked = sum(row.masked or 0 for _, row in members)
        requested = float(members[0][0].pruning.sparse_ratio or 0)
        coarsest = max(largest_block(target, row.elements or 0) for target, row in members)
        if is_missed(requested, masked / elements, slack=coarsest / elements):
            yield (
                f"global group {group}: asked for a sparsity of {requested:.4g}, got "
                f"{masked / elements:.4g} ({masked:,} of {elements:,} elements masked); its "
                "members' bounds may not allow more, or the session is not compressed"
            )


def _remarks(
    session: Reported, rows: Iterable[ReportRow], unfinished: Mapping[int, int]
) -> Iterable[Remark]:
    plan = session.plan
    waiting = [stage for stage in plan.recipe.stages if stage.path in session.waiting]
    for stage in waiting:
        text = f"{stage.path} begins at step {stage.begin}; this is step {session.steps}"
        yield Remark(kind="progress", text=text)
    begun = [
        row
        for target, row in zip(plan, rows, strict=True)
        if plan.recipe.stages[target.stage] not in waiting
    ]
    if any(row.method == "pruning" and row.sparsity is None for row in begun):
        text = "not everything has a mask yet; call session.compress()"
        yield Remark(kind="progress", text=text)
    quantized = [row for row in begun if row.method == "quantization" and not row.dynamic]
    if without := [row.name for row in quantized if row.scales is None]:
        names = ", ".join(fold_names(without))
        text = f"there is no scale yet for {names}; call session.compress()"
        yield Remark(kind="progress", text=text)
    for path in session.to_shrink:
        text = f"{path} ends with shrink, which was not done yet"
        yield Remark(kind="progress", text=text)
    for number, last in unfinished.items():
        stage = plan.recipe.stages[number]
        if stage in waiting:
            continue
        path = stage.path
        text = f"{path}: the schedule is at step {session.steps} of {last}; sparsity still grows"
        yield Remark(kind="progress", text=text)
    yield from (Remark(kind="factors", text=one) for one in session.remarks)
    yield from (Remark(kind="unmatched", text=str(one)) for one in plan.unmatched)
    yield from (Remark(kind="shadowed", text=str(one)) for one in plan.shadowed)
    yield from (Remark(kind="skipped", text=one) for one in fold_skipped(plan.skipped))
    yield from (Remark(kind="hint", text=one) for one in plan.hints)


def _moments(history: Iterable[Mapping[str, Json]]) -> Iterable[Moment]:
    for entry in history:
        yield Moment(
            step=int(entry["step"]), event=str(entry["event"]), sparsity=float(entry["sparsity"])
        )


def _activation_masks(session: Reported) -> dict[tuple[str, str], Tensor]:
    # Full-size masks are asked for only where the plan cannot know the shape.
    unknown = {
        (target.module, target.target)
        for target in session.plan
        if target.method == "pruning" and target.shape is None
    }
    if not unknown:
        return {}
    return {
        (module, name): mask
        for module, masks in session.masks().items()
        for name, mask in masks.items()
        if (module, name) in unknown
    }


def _scales(session: Reported) -> dict[tuple[str, str], QParams]:
    quantized = [target for target in session.plan if target.method == "quantization"]
    if not quantized:
        return {}
    # Making integers costs a pass over every weight, so they are asked for only where their type
    # may differ from the config's.
    own = any(makes_integers(target, session.plan) for target in quantized)
    integers = session.integer_weights() if own else {}
    return stored_qparams(session.plan, session.qparams(), integers)


def _model_elements(session: Reported) -> int:
    return sum(parameter.numel() for parameter in session.model.parameters())
