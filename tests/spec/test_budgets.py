"""Family budgets: importances and settings, and the blocks that are kept."""

import pytest
import torch

from tersely import TerselyError
from tersely.arithmetic.blocks import Blocks, block_numel
from tersely.masking.decide import decide
from tersely.masking.member import Member


def member(given, models):
    importance = torch.tensor(models.nested(given["importance"]), dtype=torch.float64)
    shape = tuple(given.get("shape", importance.shape))
    size = tuple(given.get("size", (1,) * len(shape)))
    maximum = given.get("max_sparse_ratio")
    return Member(
        name=given["name"],
        importance=importance,
        shape=shape,
        blocks=Blocks(size, given.get("scope"), given.get("keep")),
        ratio=given.get("sparse_ratio"),
        threshold=given.get("sparse_threshold"),
        minimum=given.get("min_sparse_ratio", 0),
        maximum=1 if maximum is None else maximum,
        global_group=given.get("global_group_id"),
        dependency_group=given.get("dependency_group_id"),
        internal_blocks=given.get("internal_metric_block"),
    )


@pytest.mark.spec("budgets")
def test_budgets(case, models):
    members = [member(one, models) for one in case["given"]["members"]]
    expect = case["expect"]
    if "error" in expect:
        with pytest.raises(TerselyError) as caught:
            decide(members)
        assert all(word in str(caught.value) for word in expect["error"]), str(caught.value)
        return
    kept = decide(members)
    assert [one.int().tolist() for one in kept] == expect["kept"]
    for one, mask, sparsity in zip(members, kept, expect.get("sparsity", ()), strict=False):
        masked = int((~mask).sum()) * block_numel(one.blocks.size, one.shape)
        assert masked / torch.Size(one.shape).numel() == sparsity
