"""Masks hold 0 and 1 alone (rule B9.4); averaged ones are refused before anything changes."""

import copy

import pytest
import torch
from torch import nn

import tersely


def averaged(model):
    """Return the state dict with every mask kept in nine of ten checkpoints."""
    state = model.state_dict()
    return {key: value * 0 + 0.9 if "mask" in key else value for key, value in state.items()}


def changed(model):
    return {key: value + 1 if "mask" not in key else value for key, value in model.items()}


@pytest.fixture
def session(net, prune):
    return prune(net, {"op_types": ["Linear"], "sparse_ratio": 0.5})


def test_an_averaged_mask_is_refused_with_its_target_and_what_to_do(net, session):
    with pytest.raises(tersely.SessionFileError) as caught:
        net.load_state_dict(averaged(net))
    assert str(caught.value) == (
        "the mask of first.weight holds 0.9 in 48 of its 48 elements, but a mask holds only 0 and "
        "1: averaging a state dict averages its masks too; average parameters, and take masks from "
        "the model that is trained, as the page 'Averaging weights' of the documentation shows"
    )


def test_nothing_of_a_checkpoint_is_loaded_when_its_last_mask_was_averaged(net, session):
    before = copy.deepcopy(net.state_dict())
    state = {**changed(net.state_dict()), "last._tersely_weight_mask": torch.full((3, 8), 0.5)}
    with pytest.raises(tersely.SessionFileError, match=r"last\.weight"):
        net.load_state_dict(state)
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_a_part_of_a_model_refuses_an_averaged_mask_as_well(net, session):
    state = {key.removeprefix("first."): value for key, value in averaged(net).items()}
    with pytest.raises(tersely.SessionFileError, match=r"the mask of weight holds 0\.9"):
        net.first.load_state_dict(state, strict=False)


def test_a_model_inside_of_another_refuses_an_averaged_mask(net, session):
    wrapped = nn.Sequential(net)
    with pytest.raises(tersely.SessionFileError, match=r"the mask of 0\.first\.weight holds 0.9"):
        wrapped.load_state_dict(averaged(wrapped))


def test_a_copy_refuses_an_averaged_mask(net, session):
    twin = copy.deepcopy(net)
    with pytest.raises(tersely.SessionFileError, match=r"first\.weight"):
        twin.load_state_dict(averaged(net))


@pytest.mark.parametrize("call", ["finalize", "save"])
def test_a_mask_that_was_averaged_in_place_is_refused(net, session, call, tmp_path):
    net.first._buffers["_tersely_weight_mask"].mul_(0.5)
    dense = net.first._parameters["weight"].detach().clone()
    arguments = [tmp_path / "session"] if call == "save" else []
    with pytest.raises(tersely.SessionFileError, match=r"first\.weight holds 0\.5"):
        getattr(session, call)(*arguments)
    assert torch.equal(net.first._parameters["weight"], dense)
    assert not (tmp_path / "session").exists()


def test_after_detaching_a_model_loads_whatever_its_user_likes(net, session):
    state = averaged(net)
    session.detach()
    assert "first._tersely_weight_mask" in net.load_state_dict(state, strict=False).unexpected_keys
    assert not net._load_state_dict_pre_hooks


def test_a_finalized_model_keeps_no_hook(net, session):
    assert not session.finalize()._load_state_dict_pre_hooks


def test_a_copy_whose_masks_were_averaged_in_place_does_not_compute(net, session):
    twin = copy.deepcopy(net)
    x = torch.randn(2, 6)
    twin(x)
    twin.first._buffers["_tersely_weight_mask"].mul_(0.9)
    with pytest.raises(tersely.SessionFileError, match=r"first\.weight holds 0\.9"):
        twin(x)


def test_a_copy_computes_again_once_its_masks_are_whole(net, session):
    twin, x = copy.deepcopy(net), torch.randn(2, 6)
    mask = twin.first._buffers["_tersely_weight_mask"]
    mask.mul_(0.9)
    with pytest.raises(tersely.SessionFileError):
        twin(x)
    mask.copy_(net.first._buffers["_tersely_weight_mask"])
    assert torch.equal(twin(x), net(x))


def test_a_mask_in_half_precision_may_hold_the_offset_as_it_is_rounded_there(net, prune):
    entry = {"op_names": ["first"], "sparse_ratio": 0.5, "apply_method": "add"}
    prune(net, {**entry, "mask_value": -1001.3})
    assert net.bfloat16()(torch.randn(2, 6).bfloat16()).isfinite().all()
