"""What a plan asks of each target: its sparsity, how exactly blocks can meet it, and in words."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from tersely.arithmetic.blocks import block_numel, count_blocks, resolve_size
from tersely.arithmetic.numbered import uneven_sizes
from tersely.contracts.settings import (
    Align,
    DistillationSetting,
    PruningSetting,
    QuantizationSetting,
)
from tersely.contracts.target_plan import TargetPlan
from tersely.json_value import Json

_ROUNDING = 1e-9


def requested_sparsity(target: TargetPlan, bounds: DependencyBounds) -> float | None:
    """Return the sparsity that a config asks of one target alone, or None when it asks for none.

    Args:
        target: a planned target.
        bounds: the bounds of dependency groups.
    """
    setting = target.setting
    if not isinstance(setting, PruningSetting) or setting.align is not None:
        return None
    blocks = target.blocks
    if blocks is not None and blocks.keep is not None and blocks.scope and target.shape:
        scope = block_numel(blocks.scope, target.shape)
        return 1 - blocks.keep * block_numel(blocks.size, target.shape) / scope
    if setting.sparse_ratio is None or setting.global_group_id is not None:
        return None
    low, high = bounds.of(target)
    return min(max(float(setting.sparse_ratio), low), high)


def is_missed(requested: float | None, achieved: float | None, *, slack: float) -> bool:
    """Tell whether a target has another sparsity than requested.

    Args:
        requested: the fraction asked for.
        achieved: the fraction that is masked.
        slack: the share of the blocks that rounding down may cost.
    """
    if requested is None or achieved is None:
        return False
    if requested > 0 and achieved == 0:
        return True
    return abs(requested - achieved) > slack + _ROUNDING


def rounding_slack(target: TargetPlan, bounds: DependencyBounds) -> float:
    """Return by how much a target may miss its request because only whole blocks are masked.

    Args:
        target: a planned target.
        bounds: the bounds of dependency groups.
    """
    # A ratio is met by whole blocks, rounded down in every scope and in every run of its own.
    if target.blocks is None or not target.shape or 0 in target.shape:
        return 1.0
    elements = math.prod(target.shape)
    uneven = uneven_sizes(target.blocks.size)
    if uneven is not None:
        return bounds.runs(target) * int(uneven.max()) / elements
    size = block_numel(target.blocks.size, target.shape)
    scopes = 1
    if target.blocks.scope is not None:
        scopes = elements // math.prod(resolve_size(target.blocks.scope, target.shape))
    return scopes * bounds.runs(target) * size / elements


def describe_request(target: TargetPlan) -> str:
    """Return what a config asks of a target, as a few words.

    Args:
        target: a planned target.
    """
    setting = target.setting
    if isinstance(setting, QuantizationSetting):
        return f"{setting.quant_dtype} {setting.quant_scheme}"
    if isinstance(setting, DistillationSetting):
        links = " or ".join(setting.links_of(target.module))
        return f"{setting.weight:g} x {target.algorithm} to {links}"
    if setting.align is not None:
        return f"follows {_source_name(target, setting.align)}"
    return _ranking_request(target, setting)


def _source_name(target: TargetPlan, align: Align) -> str:
    module = align.module_for(target.module)
    if module == target.module:
        return align.target_name
    return f"{module}.{align.target_name}" if module else f"{align.target_name} of the root"


def _ranking_request(target: TargetPlan, setting: PruningSetting) -> str:
    words = []
    if target.blocks is not None and target.blocks.keep is not None:
        words.append(spell(setting.granularity))
    elif setting.sparse_ratio is not None:
        words.append(f"{float(setting.sparse_ratio):.4g}")
    elif setting.sparse_threshold is not None:
        words.append(f"importance >= {float(setting.sparse_threshold):.4g}")
    if setting.min_sparse_ratio > 0:
        words.append(f"at least {float(setting.min_sparse_ratio):.4g}")
    if setting.max_sparse_ratio < 1:
        words.append(f"at most {float(setting.max_sparse_ratio):.4g}")
    if setting.global_group_id is not None:
        of = f" of {setting.budget}" if setting.is_counted_small else ""
        words.append(f"{of} over group {setting.global_group_id}".strip())
    if setting.dependency_group_id is not None:
        words.append(f"as one with {setting.dependency_group_id}")
    return ", ".join(words)


def count_target_blocks(target: TargetPlan) -> int | None:
    """Return how many decisions a target has, or None when that is not known.

    Args:
        target: a planned target.
    """
    if target.blocks is None or not target.shape or 0 in target.shape:
        return None
    return math.prod(count_blocks(target.blocks.size, target.shape))


def largest_block(target: TargetPlan, elements: int) -> int:
    """Return how many elements the largest block of a target holds.

    Args:
        target: a planned target.
        elements: how many it has itself.
    """
    uneven = None if target.blocks is None else uneven_sizes(target.blocks.size)
    return elements // (count_target_blocks(target) or 1) if uneven is None else int(uneven.max())


def spell(value: Json) -> str:
    """Return a value of a config as one would write it, without quotes.

    Args:
        value: a name, number, list or mapping; None is the empty string.
    """
    if value is None:
        return ""
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {spell(part)}" for key, part in value.items())
    return str(list(value)) if isinstance(value, (list, tuple)) else str(value)


class DependencyBounds:
    """The tightest bounds and the number of runs of each dependency group (rules B5 and B6).

    A class, because every row asks for its group and the groups are gathered once.
    """

    def __init__(self, plan: Iterable[TargetPlan]) -> None:
        self._groups: dict[str | int, list[PruningSetting]] = {}
        for target in plan:
            setting = target.setting
            if isinstance(setting, PruningSetting) and setting.dependency_group_id is not None:
                self._groups.setdefault(setting.dependency_group_id, []).append(setting)

    def of(self, target: TargetPlan) -> tuple[float, float]:
        """Return the smallest and the largest sparsity the target may have."""
        members = self._members(target)
        low = max(float(one.min_sparse_ratio) for one in members)
        high = min(float(one.max_sparse_ratio) for one in members)
        return low, high

    def runs(self, target: TargetPlan) -> int:
        """Return in how many runs of blocks the ratio is met apart."""
        return math.lcm(*(one.runs for one in self._members(target)))

    def _members(self, target: TargetPlan) -> Sequence[PruningSetting]:
        group = target.pruning.dependency_group_id
        return [target.pruning] if group is None else self._groups[group]
