"""Biases that are quantized in units of their accumulator (rule Q1.5)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tersely.arithmetic.blocks import count_blocks
from tersely.arithmetic.quantized_types import FLOAT8, quantized_range
from tersely.contracts.quantized_grids import UsesLevels
from tersely.contracts.settings import ACCUMULATOR
from tersely.contracts.target_plan import TargetPlan
from tersely.planning.plan import Plan
from tersely.planning.stages.algorithms import is_declared, make_quantizer
from tersely.planning.stages.descriptors import descriptor_of
from tersely.planning.stages.draft import Draft
from tersely.planning.targets.addresses import parse_address
from tersely.planning.targets.granularity import in_force, output_blocks
from tersely.registry.registry import registry


def check_biases(asked: Sequence[TargetPlan], plan: Plan, draft: Draft) -> None:
    """Add every bias whose scale cannot follow from its module's input and weight to the problems.

    Args:
        asked: the targets that are quantized so.
        plan: the resolved plan.
        draft: where problems are collected.
    """
    if not asked:
        return
    quantized: dict[str, list[TargetPlan]] = {}
    for target in plan.targets:
        if target.method == "quantization":
            quantized.setdefault(target.module, []).append(target)
    for target in asked:
        problem = _problem(target, quantized[target.module], plan)
        if problem is not None:
            draft.blame(target.origin.path, target.name, problem)


def _problem(bias: TargetPlan, siblings: list[TargetPlan], plan: Plan) -> str | None:
    if bias.target != "bias" or bias.kind != "parameter":
        return (
            f"quant_dtype {ACCUMULATOR!r} is for a bias, which is added to products of integers; "
            "write int8 or another of the types up to 16 bits"
        )
    weight = next((one for one in siblings if one.target == "weight"), None)
    source = next((one for one in siblings if _is_first_input(one)), None)
    missing = [name for name, one in (("_input_", source), ("weight", weight)) if one is None]
    if missing or weight is None or source is None:
        return (
            f"quant_dtype {ACCUMULATOR!r} takes scale(input) * scale(weight), and "
            f"{' and '.join(missing)} of this module is not quantized; add it to target_names"
        )
    if tables := [one.target for one in (source, weight) if _may_have_levels(one, plan)]:
        return (
            f"quant_dtype {ACCUMULATOR!r} is added to products of integers, and those of "
            f"{' and '.join(tables)} are indices into a table of levels; leave the bias out of "
            "target_names, so that it stays a float, or take an algorithm without such a table"
        )
    if not _has_one_scale(source, plan):
        return (
            f"quant_dtype {ACCUMULATOR!r} takes scale(input) * scale(weight), so its input has one "
            f"scale, and {source.quantization.granularity} gives it several; write "
            "granularity: default for _input_, or take an algorithm whose default is the tensor"
        )
    if weight.blocks is not None and weight.shape is not None:
        counts = count_blocks(weight.blocks.size, weight.shape)
        channels = output_blocks(weight.shape, weight.output_dim, groups=weight.groups)
        if counts != count_blocks(channels.size, weight.shape) and math.prod(counts) != 1:
            return (
                f"quant_dtype {ACCUMULATOR!r} takes scale(input) * scale(weight), so its weight "
                "has one scale, or one for each output channel; write granularity: per_channel"
            )
    return None


def _may_have_levels(target: TargetPlan, plan: Plan) -> bool:
    stage, info = plan.recipe.stages[target.stage], descriptor_of(plan.recipe.stages[target.stage])
    limits = quantized_range(target.quantization.quant_dtype)
    if info is None or limits.quant_min != 0 or target.quantization.quant_dtype in FLOAT8:
        return False
    if not is_declared(UsesLevels, registry().quantizers[stage.algorithm], info):
        return False
    made: object = make_quantizer(stage.algorithm, stage.options, place=stage.path)
    return isinstance(made, UsesLevels) and made.level_tables


def _has_one_scale(source: TargetPlan, plan: Plan) -> bool:
    info = descriptor_of(plan.recipe.stages[source.stage])
    if info is None:
        return False
    try:
        return in_force(source.quantization.granularity, source.kind, info).is_whole
    except ValueError:
        return True  # a granularity that the input cannot have is a problem of its own


def _is_first_input(target: TargetPlan) -> bool:
    address = parse_address(target.target)
    return address is not None and target.kind == "input" and address.is_first
