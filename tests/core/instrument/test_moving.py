"""A model moves to another dtype or device with what algorithms learn in its buffers."""

import pytest
import torch

import tersely
from tersely.instrument.names import PREFIX

NAME = f"{PREFIX}weight_factor"


@pytest.fixture
def learning(net):
    """Two attached layers that share one buffer that learns."""
    recipe = {"algorithm": "toy", "config_list": [{"op_types": ["Linear"], "sparse_ratio": 0.5}]}
    tersely.attach(net, {"pruning": recipe})
    leaf = torch.tensor([1.0, 2.0], requires_grad=True)
    for layer in (net.first, net.last):
        layer.register_buffer(NAME, leaf)
    return net, leaf


def test_what_is_learned_stays_the_tensor_that_its_optimizer_knows(learning):
    net, leaf = learning
    net.double()
    assert net.first._buffers[NAME] is leaf
    assert leaf.dtype == torch.float64
    assert leaf.is_leaf
    assert leaf.requires_grad
    assert leaf.tolist() == [1.0, 2.0]


def test_modules_that_share_it_go_on_sharing_it(learning):
    net, _ = learning
    net.double()
    assert net.first._buffers[NAME] is net.last._buffers[NAME]


def test_its_gradient_moves_with_it(learning):
    net, leaf = learning
    leaf.square().sum().backward()
    net.double()
    assert leaf.grad.dtype == torch.float64
    assert leaf.grad.tolist() == [2.0, 4.0]


def test_an_optimizer_made_before_goes_on_moving_it(learning):
    net, leaf = learning
    optimizer = torch.optim.SGD([leaf], lr=0.5)
    net.double()
    net.first._buffers[NAME].sum().backward()
    optimizer.step()
    assert net.last._buffers[NAME].tolist() == [0.5, 1.5]


def test_what_is_learned_stays_that_tensor_when_a_checkpoint_is_assigned(learning):
    net, leaf = learning
    optimizer = torch.optim.SGD([leaf], lr=0.5)
    state = {key: value.clone() for key, value in net.state_dict().items()}
    for name in ("first", "last"):
        state[f"{name}.{NAME}"] = torch.tensor([3.0, 4.0])
    net.load_state_dict(state, assign=True)
    assert net.first._buffers[NAME] is net.last._buffers[NAME] is leaf
    assert leaf.tolist() == [3.0, 4.0]
    leaf.sum().backward()
    optimizer.step()
    assert leaf.tolist() == [2.5, 3.5]
    assert state[f"first.{NAME}"].tolist() == [3.0, 4.0]


def test_what_is_learned_goes_on_learning_where_loading_swaps_tensors(learning):
    net, leaf = learning
    state = {key: torch.ones_like(value) for key, value in net.state_dict().items()}
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        net.load_state_dict(state)
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)
    assert net.first._buffers[NAME] is leaf
    assert leaf.requires_grad
    assert leaf.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_what_is_learned_stays_in_full_precision_in_a_model_of_half(learning, dtype):
    net, leaf = learning
    leaf.square().sum().backward()
    net.to(dtype)
    assert net.first._buffers[NAME] is leaf
    assert leaf.dtype == leaf.grad.dtype == torch.float32
    net.double().to(dtype)
    assert leaf.dtype == torch.float32


def test_what_is_learned_moves_to_the_meta_device_and_back(learning):
    net, _ = learning
    net.to("meta")
    assert net.first._buffers[NAME].is_meta
    net.to_empty(device="cpu")
    assert net.first._buffers[NAME].shape == (2,)
    assert net.first._buffers[NAME].requires_grad


def test_a_checkpoint_of_the_meta_device_can_be_assigned(learning):
    net, _ = learning
    state = {key: value.to("meta") for key, value in net.state_dict().items()}
    net.load_state_dict(state, assign=True)
    assert net.first._buffers[NAME].is_meta
    assert net.first._buffers[NAME].requires_grad
