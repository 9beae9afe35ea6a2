"""Family budgets: importances and settings, and the blocks that are kept."""

import pytest
import torch

from tersely import TerselyError
from tersely.arithmetic.blocks import Blocks, block_numel
from tersely.contracts.settings import PruningSetting
from tersely.contracts.target_plan import Origin, TargetPlan
from tersely.document.recipe import Recipe
from tersely.masking.decide import decide
from tersely.masking.member import Member
from tersely.planning.plan import Plan
from tersely.planning.selecting.selection import Universe
from tersely.planning.stages.checks import check_plan
from tersely.planning.stages.draft import Draft
from tersely.planning.targets.owners import Owners
from tersely.planning.targets.templates import Templates


def member(given, models):
    importance = torch.tensor(models.nested(given["importance"]), dtype=torch.float64)
    shape = tuple(given.get("shape", importance.shape))
    size = tuple(given.get("size", (1,) * len(shape)))
    maximum = given.get("max_sparse_ratio")
    return Member(
        name=given["name"],
        importance=importance,
        shape=shape,
        blocks=Blocks(index=given["index"])
        if "index" in given
        else Blocks(size, given.get("scope"), given.get("keep")),
        ratio=given.get("sparse_ratio"),
        threshold=given.get("sparse_threshold"),
        minimum=given.get("min_sparse_ratio", 0),
        maximum=1 if maximum is None else maximum,
        global_group=given.get("global_group_id"),
        dependency_group=given.get("dependency_group_id"),
        internal_blocks=given.get("internal_metric_block"),
        parts=given.get("dependency_parts", 1),
    )


KEYS = ("name", "importance", "shape", "size", "scope", "keep", "index")


def planning_problems(given, members):
    """What planning says of the keys of a case, whose blocks are taken as they are."""
    targets = tuple(
        TargetPlan(
            module="",
            target=member.name,
            kind="parameter",
            method="pruning",
            algorithm="level",
            setting=PruningSetting.of({key: keys[key] for key in keys if key not in KEYS}),
            origin=Origin("pruning.config_list[0]"),
            shape=member.shape,
            blocks=member.blocks,
        )
        for keys, member in zip(given, members, strict=True)
    )
    universe = Universe.of(torch.nn.Module())
    recipe = Recipe(stages=())
    draft = Draft(universe, Owners(universe), Templates(()), recipe)
    check_plan(Plan(targets=targets, recipe=recipe), draft, None)
    return draft.problems


@pytest.mark.spec("budgets")
def test_budgets(case, models):
    members = [member(one, models) for one in case["given"]["members"]]
    expect = case["expect"]
    if "error" in expect:
        # Keys that contradict each other are refused in planning, values when they are seen.
        text = "; ".join(planning_problems(case["given"]["members"], members))
        if not text:
            with pytest.raises(TerselyError) as caught:
                decide(members)
            text = str(caught.value)
        assert all(word in text for word in expect["error"]), text
        return
    kept = decide(members)
    assert [one.int().tolist() for one in kept] == expect["kept"]
    for one, mask, sparsity in zip(members, kept, expect.get("sparsity", ()), strict=False):
        masked = int((~mask).sum()) * block_numel(one.blocks.size, one.shape)
        assert masked / torch.Size(one.shape).numel() == sparsity
