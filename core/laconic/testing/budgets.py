"""Budgets of contracts: how many elements a ratio has to mask, counted from the plan alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction

from laconic.blocks import Blocks, count_blocks
from laconic.errors import PlanError
from laconic.planning.plan import Plan
from laconic.planning.resolve import plan as make_plan
from laconic.registry.descriptors import Json
from laconic.testing.models import contract_net

RATIOS: Sequence[float] = (0, 0.29, 0.5, 1)
"""Nothing, everything, a half, and a number that floats do not hit."""


def fitting_recipe(
    recipe_of: Callable[[Json, float | None], dict[str, Json]],
    granularity: Json,
    *,
    ratio: float,
) -> tuple[dict[str, Json], Plan] | None:
    """Return a recipe with a granularity that fits the contract net, and its plan, or None.

    A granularity that fixes the ratio itself, such as ``2:4``, is tried without one; one that does
    not divide the net is left out.

    Args:
        recipe_of: makes a recipe from a granularity and a ratio.
        granularity: the granularity as a document spells it.
        ratio: the ratio to ask for.
    """
    recipe = recipe_of(granularity, ratio)
    try:
        return recipe, make_plan(contract_net(), recipe)
    except PlanError:
        recipe = recipe_of(granularity, None)
    try:
        planned = make_plan(contract_net(), recipe)
    except PlanError:
        return None
    if all(target.blocks is None or target.blocks.keep is None for target in planned):
        return None
    return recipe, planned


def expected_masked(planned: Plan, ratio: float) -> dict[str, int]:
    """Return how many elements of each module's weight must be masked.

    Args:
        planned: the plan.
        ratio: the ratio its recipe asks for, which N:M blocks overrule.
    """
    return {
        target.module: _masked_elements(target.blocks, target.shape, ratio)
        for target in planned
        if target.blocks is not None and target.shape is not None
    }


def _masked_elements(blocks: Blocks, shape: tuple[int, ...], ratio: float) -> int:
    total = math.prod(count_blocks(blocks.size, shape))
    scopes = 1 if blocks.scope is None else math.prod(count_blocks(blocks.scope, shape))
    per_scope = total // scopes
    if blocks.keep is None:
        masked = int(Fraction(str(ratio)) * per_scope)
    else:
        masked = per_scope - blocks.keep
    return masked * scopes * (math.prod(shape) // total)
