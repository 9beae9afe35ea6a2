"""Family align: a source's mask and a target, and the mask that follows."""

import pytest
import torch

import tersely
from tersely import PlanError
from tersely.arithmetic.blocks import Blocks, expand_blocks
from tersely.masking.align import align_kept, place_kept

CHANNELS_FIRST = ("Conv", "BatchNorm", "InstanceNorm", "GroupNorm", "Pool")


def follow(given):
    target = given["target"]
    source = torch.tensor(given["source"], dtype=torch.bool)
    shape = tuple(target["shape"])
    blocks = Blocks(target["size"]) if "size" in target else None
    kept = align_kept(source, given["dims"])
    first = 0
    if target["kind"] != "parameter" and not any(t in target["module"] for t in CHANNELS_FIRST):
        first = -1
    placed = place_kept(kept, shape, first_dim=first, groups=target.get("groups", 1), blocks=blocks)
    if blocks is not None:
        return expand_blocks(placed, blocks.size, shape)
    return placed.expand(shape)


@pytest.mark.spec("align")
def test_align(case):
    expect = case["expect"]
    if "error" in expect:
        with pytest.raises(PlanError) as caught:
            follow(case["given"])
        assert all(word in str(caught.value) for word in expect["error"]), str(caught.value)
        return
    assert follow(case["given"]).int().tolist() == expect["kept"]


def test_the_runner_knows_which_modules_have_channels_first():
    settings = tersely.registry().module_settings()
    for setting in settings:
        name = setting.module_type.rpartition(".")[2]
        is_torch_s = setting.module_type.startswith("torch.nn.")
        if is_torch_s and any(part in name for part in CHANNELS_FIRST):
            assert setting.channels_first, name
