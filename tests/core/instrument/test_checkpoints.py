"""Invariant 2: the user's keys stay, a dense checkpoint loads, a compressed one brings its masks."""

import pytest
import torch
from torch import nn

import tersely

RECIPE = {
    "pruning": {
        "algorithm": "toy",
        "config_list": [
            {"op_types": ["Linear"], "sparse_ratio": 0.5},
            {"op_names": ["act"], "target_names": ["_output_"], "sparse_ratio": 0.25},
        ],
    }
}


def test_a_state_dict_keeps_the_users_keys_and_adds_reserved_ones(net, masked):
    keys = list(net.state_dict())
    assert [key for key in keys if "_tersely_" not in key] == [
        "first.weight",
        "first.bias",
        "last.weight",
        "last.bias",
    ]
    assert sorted(key for key in keys if "_tersely_" in key) == [
        "act._tersely__output__mask",
        "act._tersely_layout",
        "first._tersely_bias_mask",
        "first._tersely_weight_mask",
        "last._tersely__input__mask",
        "last._tersely_bias_mask",
        "last._tersely_layout",
        "last._tersely_weight_mask",
    ]


def test_a_state_dict_holds_the_raw_weights(net, prune):
    raw = net.first.weight
    prune(net, {"op_types": ["Linear"], "sparse_ratio": 0.5})
    assert torch.equal(net.state_dict()["first.weight"], raw)


def test_a_dense_checkpoint_loads_strictly_while_attached(net, masked):
    dense = {name: torch.ones_like(value) for name, value in net.named_parameters()}
    assert str(net.load_state_dict(dense, strict=True)) == "<All keys matched successfully>"
    assert torch.equal(net.first.weight, masked.masks()["first"]["weight"].float())


def test_a_dense_checkpoint_loads_strictly_after_detaching(net, masked):
    dense = {name: torch.ones_like(value) for name, value in net.named_parameters()}
    masked.detach()
    assert str(net.load_state_dict(dense, strict=True)) == "<All keys matched successfully>"


def test_a_missing_key_of_the_user_is_still_reported(net, masked):
    dense = {name: torch.ones_like(value) for name, value in net.named_parameters()}
    del dense["last.bias"]
    assert net.load_state_dict(dense, strict=False).missing_keys == ["last.bias"]


def test_masks_of_a_checkpoint_load_into_an_attached_model(net, x, masked):
    other = type(net)()
    tersely.attach(other, RECIPE)
    checkpoint = {key: value for key, value in net.state_dict().items() if "_input_" not in key}
    assert str(other.load_state_dict(checkpoint)) == "<All keys matched successfully>"
    assert torch.equal(other.first.weight, net.first.weight)
    assert torch.equal(other.act(other.first(x)), net.act(net.first(x)))


def test_a_session_whose_masks_came_with_a_checkpoint_steps_and_finalizes(net, x, prune):
    prune(net, {"op_types": ["Linear"], "sparse_ratio": 0.5})
    other = type(net)()
    config_list = [{"op_types": ["Linear"], "sparse_ratio": 0.5}]
    session = tersely.attach(other, {"pruning": {"algorithm": "toy", "config_list": config_list}})
    other.load_state_dict(net.state_dict())
    session.step()
    session.finalize()
    assert torch.equal(other(x), net(x))


def test_masks_of_a_checkpoint_take_the_dtype_of_the_weight_they_meet(net, masked):
    other = type(net)().double()
    tersely.attach(other, RECIPE)
    other.load_state_dict(net.state_dict(), strict=False)
    assert other.first._buffers["_tersely_weight_mask"].dtype is torch.float64


def test_loading_a_checkpoint_into_masks_in_force_edits_them_in_place(net, masked):
    mask = net.first._buffers["_tersely_weight_mask"]
    changed = {**net.state_dict(), "first._tersely_weight_mask": torch.zeros(8, 6)}
    net.load_state_dict(changed)
    assert net.first._buffers["_tersely_weight_mask"] is mask
    assert int(mask.sum()) == 0


def test_a_mask_that_does_not_fit_is_reported_as_a_size_mismatch(net, masked):
    other = type(net)()
    tersely.attach(other, RECIPE)
    changed = {**net.state_dict(), "first._tersely_weight_mask": torch.zeros(5, 6)}
    with pytest.raises(RuntimeError) as caught:
        other.load_state_dict(changed, strict=False)
    assert (
        "size mismatch for first._tersely_weight_mask: the checkpoint's mask has shape [5, 6], "
        "which does not fit first.weight with [8, 6]"
    ) in str(caught.value)


def test_a_mask_of_something_that_is_no_target_is_unexpected(net, masked):
    checkpoint = net.state_dict()
    masked.detach()
    other = type(net)()
    recipe = {"pruning": {"algorithm": "toy", "config_list": [{"op_names": ["last"]}]}}
    tersely.attach(other, recipe)
    found = other.load_state_dict(checkpoint, strict=False)
    assert "first._tersely_weight_mask" in found.unexpected_keys
    assert "last._tersely__input__mask" in found.unexpected_keys
    assert "_tersely__input__mask" not in other.last._buffers


def test_a_checkpoint_can_be_assigned_instead_of_copied(net, x, masked):
    other = type(net)()
    tersely.attach(other, RECIPE)
    checkpoint = {key: value for key, value in net.state_dict().items() if "_input_" not in key}
    other.load_state_dict(checkpoint, assign=True)
    assert torch.equal(other.first.weight, net.first.weight)


def test_extra_state_of_the_user_survives(prune):
    class Counting(nn.Linear):
        calls = 7

        def get_extra_state(self):
            return self.calls

        def set_extra_state(self, state):
            self.calls = state + 1

    model = nn.Sequential(Counting(4, 2))
    prune(
        model,
        {
            "op_names": ["0"],
            "target_names": ["weight"],
            "target_settings": {"weight": {"sparse_ratio": 0.5}},
        },
    )
    model.load_state_dict(model.state_dict())
    assert model[0].calls == 8
