"""Family align: a source's mask and a target, and the mask that follows."""

from collections import OrderedDict

import pytest
import torch
from torch import nn

import tersely
from tersely import PlanError
from tersely.arithmetic.blocks import Blocks, expand_blocks
from tersely.masking.align import align_kept, place_kept

ENTRY = {"op_names": ["layer"], "target_names": ["weight", "_output_"]}


def follow(given):
    target = given["target"]
    source = torch.tensor(given["source"], dtype=torch.bool)
    shape = tuple(target["shape"])
    blocks = Blocks(target["size"]) if "size" in target else None
    kept = align_kept(source, given["dims"])
    placed = place_kept(kept, shape, groups=target.get("groups", 1), blocks=blocks)
    if blocks is not None:
        return expand_blocks(placed, blocks.size, shape)
    return placed.expand(shape)


def follow_in_session(given, scripted):
    """Return the mask of a layer's output, for one sample, from a session that prunes its weight."""
    source, shape = torch.tensor(given["source"]), given["target"]["shape"]
    if given["target"]["module"] == "Linear":
        rows, columns = source.shape
        layer, sample = nn.Linear(columns, rows), (*shape[:-1], columns)
    else:
        layer, sample = nn.BatchNorm2d(len(source)), shape
    scripted.kept = source
    settings = {
        "weight": {"sparse_ratio": float((source == 0).float().mean())},
        "_output_": {"align": {"target_name": "weight", "dims": given["dims"]}},
    }
    recipe = {"algorithm": "scripted", "config_list": [{**ENTRY, "target_settings": settings}]}
    session = tersely.attach(nn.Sequential(OrderedDict(layer=layer)), {"pruning": recipe})
    session.calibrate([torch.ones(1, *sample)])
    session.compress()
    return session.masks()["layer"]["_output_"].expand(shape)


@pytest.mark.spec("align")
def test_align(case, own_algorithms):
    given, expect = case["given"], case["expect"]
    if "error" in expect:
        with pytest.raises(PlanError) as caught:
            follow(given)
        assert all(word in str(caught.value) for word in expect["error"]), str(caught.value)
    elif given["target"]["kind"] == "parameter":
        assert follow(given).int().tolist() == expect["kept"]
    else:
        found = follow_in_session(given, own_algorithms.Scripted)
        assert found.int().tolist() == expect["kept"]
