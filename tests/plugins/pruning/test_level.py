"""Level gives its scores away: masks are made in their memory, and are what they were."""

import pytest
import torch
from torch import nn

import tersely
from tersely_pruning.level import Level

WEIGHTS = {"op_types": ["Linear"], "target_names": ["weight"], "sparse_ratio": 0.4}


def layers():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(12, 12), nn.Linear(12, 12), nn.Linear(12, 12))


def buffers(*entries):
    model = layers()
    tersely.prune(model, list(entries), algorithm="level")
    return {name: buffer.clone() for name, buffer in model.named_buffers()}


@pytest.mark.parametrize(
    "setting",
    [
        {},
        {"global_group_id": "all"},
        {"global_group_id": "all", "max_sparse_ratio": 0.45},
        {"dependency_group_id": "all"},
        {"apply_method": "add"},
        {"internal_metric_block": 3},
        {"sparse_ratio": None, "sparse_threshold": 0.1},
    ],
    ids=lambda setting: ", ".join(setting) or "alone",
)
def test_masks_are_what_they_are_when_scores_are_kept(setting, monkeypatch):
    entry = {key: value for key, value in {**WEIGHTS, **setting}.items() if value is not None}
    found = buffers(entry)
    monkeypatch.setattr(Level, "new_scores", False)
    expected = buffers(entry)
    assert found.keys() == expected.keys()
    for name, mask in expected.items():
        assert torch.equal(found[name], mask)
        assert 0 < int((mask == mask.max()).sum()) < mask.numel()


def test_what_follows_a_mask_in_all_dimensions_has_one_of_its_own():
    model = layers()
    align = {"module_name": "0", "target_name": "weight", "dims": [0, 1]}
    follower = {
        "op_names": ["1"],
        "target_names": ["weight"],
        "target_settings": {"weight": {"align": align}},
    }
    session = tersely.prune(
        model,
        [{**WEIGHTS, "op_types": ["Linear"], "exclude_op_names": ["1"]}, follower],
        algorithm="level",
    )
    masks = session.masks()
    assert torch.equal(masks["0"]["weight"], masks["1"]["weight"])
    first, second = (dict(model[index].named_buffers())["_tersely_weight_mask"] for index in (0, 1))
    assert first.data_ptr() != second.data_ptr()


def test_pruning_again_edits_the_masks_that_are_there():
    model = layers()
    session = tersely.prune(model, [WEIGHTS], algorithm="level")
    before = dict(model.named_buffers())
    with torch.no_grad():
        model[0]._parameters["weight"].copy_(model[0]._parameters["weight"].flip(0))
    kept = session.masks()["0"]["weight"]
    session.compress()
    after = dict(model.named_buffers())
    assert all(after[name] is buffer for name, buffer in before.items())
    assert torch.equal(session.masks()["0"]["weight"], kept.flip(0))
