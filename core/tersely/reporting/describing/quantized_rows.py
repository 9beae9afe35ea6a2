"""What a report says about each quantized target: type, scheme, granularity, scales."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from tersely.arithmetic.qparams import QParams
from tersely.contracts.abilities import Ability
from tersely.contracts.quantized_forward import Simulates
from tersely.contracts.quantizer import ChoosesPerCall
from tersely.contracts.target_plan import TargetPlan
from tersely.planning.plan import Plan
from tersely.planning.stages.algorithms import is_declared
from tersely.planning.targets.granularity import in_force
from tersely.quantization.targets import info_of
from tersely.registry.registry import registry
from tersely.reporting.describing.expectation import spell
from tersely.reporting.rows import ReportRow


def with_quantization(
    row: ReportRow, target: TargetPlan, plan: Plan, qparams: QParams | None
) -> ReportRow:
    """Return a row with everything that is known of its quantization.

    Args:
        row: the row of a quantized target.
        target: the target.
        plan: the plan.
        qparams: the parameters in force, of the integers that are stored; None when there are none.
    """
    setting = target.quantization
    granularity = in_force(setting.granularity, target.kind, info_of(target, plan.recipe.stages))
    found = attrs.evolve(
        row,
        granularity=spell(granularity.value),
        dtype=setting.quant_dtype,
        scheme=setting.quant_scheme,
        observed_only=not setting.is_simulated,
        dynamic=target.kind in ("input", "output")
        and (granularity.is_dynamic or _declares(target, plan, ChoosesPerCall)),
    )
    if setting.is_accumulated:
        found = attrs.evolve(found, scheme="symmetric", granularity="as the weight")
    if qparams is None:
        return found
    return attrs.evolve(
        found,
        dtype=qparams.dtype,
        scheme=qparams.scheme,
        scales=qparams.scale.numel(),
        scale_low=float(qparams.scale.min()),
        scale_high=float(qparams.scale.max()),
    )


def stored_qparams(
    plan: Plan,
    qparams: Mapping[str, Mapping[str, QParams]],
    integers: Mapping[str, Mapping[str, Any]],
) -> dict[tuple[str, str], QParams]:
    """Return how every quantized target is read where it is stored.

    Args:
        plan: the plan.
        qparams: the parameters in force, by module and target.
        integers: the integer tensors of algorithms that make them in their own way, likewise.
    """
    found = {(module, name): one for module, some in qparams.items() for name, one in some.items()}
    found.update(
        ((target.module, target.target), integers[target.module][target.target].qparams)
        for target in plan
        if target.method == "quantization"
        and target.kind in ("parameter", "buffer")
        and makes_integers(target, plan)
        and target.target in integers.get(target.module, {})
    )
    return found


def makes_integers(target: TargetPlan, plan: Plan) -> bool:
    """Tell whether a target's algorithm makes integers itself, perhaps of another type.

    Args:
        target: a quantized target.
        plan: the plan it belongs to.
    """
    return _declares(target, plan, Simulates)


def _declares(target: TargetPlan, plan: Plan, ability: type[Ability]) -> bool:
    # Looked up as the recipe spells it: the plan shows the short name, which may be taken twice.
    algorithm = plan.recipe.stages[target.stage].algorithm
    quantizers = registry().quantizers
    return is_declared(ability, quantizers[algorithm], quantizers.info(algorithm))
