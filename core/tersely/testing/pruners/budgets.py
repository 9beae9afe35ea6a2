"""Budgets of pruners: what a ratio must mask, counted from the plan alone."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Protocol

from tersely.arithmetic.blocks import Blocks, block_numel, count_blocks
from tersely.arithmetic.numbered import uneven_sizes
from tersely.contracts.target_plan import TargetPlan
from tersely.errors import PlanError, TerselyError
from tersely.json_value import Json
from tersely.planning.plan import Plan
from tersely.planning.resolve import plan as make_plan
from tersely.session.session import Session
from tersely.testing.contract import ContractError, expect
from tersely.testing.models import contract_net
from tersely.testing.pruners.preparing import compress, prepare, share_due

# Nothing, a ratio that floats do not represent exactly, a half, and everything.
_RATIOS = (0, 0.29, 0.5, 1)
_DEFAULT = "default"


class RecipeOf(Protocol):
    """Makes a recipe with one pruning stage for some modules of a contract net."""

    def __call__(
        self, granularity: Json, ratio: float | None, modules: Sequence[str]
    ) -> dict[str, Json]:
        """Return the recipe; without a ratio it has no ``sparse_ratio``."""
        ...


def check_granularity_budgets(
    recipe_of: RecipeOf, granularity: Json, modules: Iterable[str]
) -> None:
    """Check that ratios are met exactly on the weights that a granularity can divide.

    A granularity other than the default may be refused with PlanError for some of them, when the
    tensors are ranked: not every algorithm can distinguish all blocks.

    Args:
        recipe_of: makes a recipe of the algorithm.
        granularity: the granularity as a document spells it.
        modules: the modules whose weights to try.

    Raises:
        ContractError: a budget is missed, or the default does not fit.
    """
    divided = [one for one in modules if _plan(recipe_of, granularity, [one]) is not None]
    expect(
        bool(divided) or granularity != _DEFAULT,
        "the default granularity fits none of the weights that were tried",
    )
    if granularity != _DEFAULT and _refuses(recipe_of, granularity, divided):
        divided = [one for one in divided if not _refuses(recipe_of, granularity, [one])]
    planned = _plan(recipe_of, granularity, divided)
    if planned is None:
        return
    for ratio in (None,) if _is_fixed(planned) else _RATIOS:
        _check_budget(recipe_of(granularity, ratio, divided), granularity, ratio)


def _plan(recipe_of: RecipeOf, granularity: Json, modules: Sequence[str]) -> Plan | None:
    if not modules:
        return None
    try:
        return make_plan(contract_net(), recipe_of(granularity, None, modules))
    except PlanError:
        return None  # this granularity does not divide these weights


def _is_fixed(planned: Plan) -> bool:
    # A granularity such as 2:4 fixes how many blocks are kept.
    return any(target.blocks and target.blocks.keep is not None for target in planned)


def _refuses(recipe_of: RecipeOf, granularity: Json, modules: Sequence[str]) -> bool:
    planned = _plan(recipe_of, granularity, modules)
    if planned is None:
        return False
    ratio = None if _is_fixed(planned) else 0.5
    try:
        compress(prepare(contract_net(), recipe_of(granularity, ratio, modules)))
    except PlanError:
        return True
    except TerselyError:
        return False  # the check of the budget reports it
    return False


def _check_budget(recipe: dict[str, Json], granularity: Json, ratio: float | None) -> None:
    where = f"granularity {granularity!r}, ratio {ratio}"
    try:
        session = prepare(contract_net(), recipe)
        compress(session)
    except TerselyError as error:
        raise ContractError(f"{where}: {error}") from error
    share = share_due(session)
    if ratio is None and share != 1:
        return  # the plan does not state how much of a fixed number of blocks is due by then
    due = Fraction(str(ratio or 0)) * share
    if any(_shares(target) for target in session.plan):
        _check_shared_budget(session, due, where=where)
        return
    expected = _expected_masked(session.plan, due)
    for module, targets in session.masks().items():
        masked = int((~targets["weight"]).sum())
        expect(
            masked in expected[module],
            f"{module}.weight, {where}: {masked} elements are masked, the budget is "
            f"{expected[module][-1]}",
        )


def _shares(target: TargetPlan) -> bool:
    # A ratio that counts per scope is met in each scope, whatever the default scope is.
    is_scoped = target.blocks is not None and target.blocks.scope is not None
    return target.pruning.global_group_id is not None and not is_scoped


def _check_shared_budget(session: Session, ratio: Fraction, *, where: str) -> None:
    # Blocks are masked until the next one would exceed the budget (rules B4.1 and B4.2).
    masked = sum(int((~one["weight"]).sum()) for one in session.masks().values())
    shapes = [target.shape for target in session.plan if target.shape is not None]
    budget = int(ratio * sum(math.prod(shape) for shape in shapes))
    block = max(
        _largest(target.blocks, target.shape)
        for target in session.plan
        if target.blocks is not None and target.shape is not None
    )
    expect(
        budget - block < masked <= budget,
        f"{where}: {masked} elements are masked in all targets together, the budget is {budget}",
    )


def _expected_masked(planned: Plan, ratio: Fraction) -> dict[str, range]:
    return {
        target.module: _masked_elements(target.blocks, target.shape, ratio)
        for target in planned
        if target.blocks is not None and target.shape is not None
    }


def _largest(blocks: Blocks, shape: tuple[int, ...]) -> int:
    uneven = uneven_sizes(blocks.size)
    return block_numel(blocks.size, shape) if uneven is None else int(uneven.max())


def _masked_elements(blocks: Blocks, shape: tuple[int, ...], ratio: Fraction) -> range:
    uneven = uneven_sizes(blocks.size)
    if uneven is not None:  # masked until the next one would exceed the budget
        budget = int(ratio * math.prod(shape))
        return range(max(budget - int(uneven.max()) + 1, 0), budget + 1)
    total = math.prod(count_blocks(blocks.size, shape))
    scopes = 1 if blocks.scope is None else math.prod(count_blocks(blocks.scope, shape))
    per_scope = total // scopes
    masked = int(ratio * per_scope) if blocks.keep is None else per_scope - blocks.keep
    elements = masked * scopes * (math.prod(shape) // total)
    return range(elements, elements + 1)
