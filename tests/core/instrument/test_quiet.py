"""Invariant 9: the meta device plans, and nothing that is not tersely's is touched."""

import pytest
import torch
from messages.sessions import ON_META
from torch import nn

import tersely


def recipe(**changes):
    entry = {"op_types": ["Linear"], "sparse_ratio": 0.5, **changes}
    return {"pruning": {"algorithm": "toy", "config_list": [entry]}}


def test_a_model_on_the_meta_device_plans():
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(1 << 15, 1 << 15), nn.Linear(1 << 15, 4))
    plan = tersely.plan(model, recipe())
    assert [target.name for target in plan] == ["0.weight", "0.bias", "1.weight", "1.bias"]
    assert plan.targets[0].shape == (1 << 15, 1 << 15)
    assert all(parameter.is_meta for parameter in model.parameters())


def test_a_model_on_the_meta_device_attaches_but_cannot_be_ranked(snapshot, assert_same):
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(4, 4))
    session = tersely.attach(model, recipe())
    with pytest.raises(tersely.SessionError) as caught:
        session.compress()
    assert str(caught.value) == (
        f"0.weight {ON_META}, so it has no values to rank; load the model's weights before "
        "session.compress()"
    )


def test_a_model_that_is_loaded_after_attaching_compresses():
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(2, 2, bias=False))
    session = tersely.attach(model, recipe())
    weights = {"0.weight": torch.tensor([[1.0, -4.0], [3.0, -2.0]])}
    model.load_state_dict(weights, assign=True)
    session.compress()
    assert model[0].weight.tolist() == [[0.0, -4.0], [3.0, 0.0]]


def test_requires_grad_stays_as_it_was(net, x, prune):
    net.first.weight.requires_grad_(False)
    net.last.bias.requires_grad_(False)
    session = prune(net, {"op_types": ["Linear"], "sparse_ratio": 0.5}, data=[x])
    expected = {"first.weight": False, "first.bias": True, "last.weight": True, "last.bias": False}
    assert {name: one.requires_grad for name, one in net.named_parameters()} == expected
    session.finalize()
    assert {name: one.requires_grad for name, one in net.named_parameters()} == expected


def test_each_modules_mode_stays_as_it_was(net, x, prune):
    net.train()
    net.first.eval()
    session = prune(
        net, {"op_names": ["act"], "target_names": ["_output_"], "sparse_ratio": 0.5}, data=[x]
    )
    session.step()
    modes = {name: module.training for name, module in net.named_modules()}
    assert modes == {"": True, "first": False, "act": True, "last": True}


def test_each_modules_mode_comes_back_after_a_failed_calibration(net, masked):
    net.train()
    net.first.eval()
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        masked.calibrate([torch.zeros(1, 5)])
    assert [module.training for module in net.modules()] == [True, False, True, True]


def test_random_numbers_go_on_as_if_nothing_had_happened(net, x, prune):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    session = prune(net, {"op_types": ["Linear"], "sparse_ratio": 0.5}, data=[x])
    net(x)
    session.step()
    session.finalize()
    assert torch.equal(torch.rand(3), expected)


def test_gradients_of_the_user_are_kept(net, x, prune):
    net(x).sum().backward()
    before = {name: one.grad.clone() for name, one in net.named_parameters()}
    prune(net, {"op_types": ["Linear"], "sparse_ratio": 0.5}, data=[x]).finalize()
    assert all(torch.equal(one.grad, before[name]) for name, one in net.named_parameters())


def test_global_flags_stay_as_they_were(net, x, prune):
    def flags():
        return (
            torch.is_grad_enabled(),
            torch.is_inference_mode_enabled(),
            torch.get_default_dtype(),
            torch.get_num_threads(),
            torch.are_deterministic_algorithms_enabled(),
            torch.is_anomaly_enabled(),
            torch.backends.mha.get_fastpath_enabled(),
            torch.backends.cudnn.benchmark,
        )

    before = flags()
    session = prune(net, {"op_types": ["Linear"], "sparse_ratio": 0.5}, data=[x])
    session.step()
    session.finalize()
    assert flags() == before


def test_the_raw_weights_are_not_written_before_finalize(net, x, prune):
    versions = [parameter._version for parameter in net.parameters()]
    session = prune(net, {"op_types": ["Linear"], "sparse_ratio": 0.5}, data=[x])
    net(x).sum().backward()
    session.step()
    assert [parameter._version for parameter in net.parameters()] == versions


def test_the_users_forward_hooks_still_run(net, x, prune):
    seen = []
    net.act.register_forward_hook(lambda module, args, output: seen.append(output))
    prune(net, {"op_names": ["act"], "target_names": ["_output_"], "sparse_ratio": 0.5}, data=[x])
    seen.clear()
    net(x)
    assert len(seen) == 1
    assert int((seen[0] == 0).all(0).sum()) >= 4


def test_nothing_is_kept_of_a_forward(net, x, masked):
    net.train()
    net(x)
    tensors = [*net.buffers(), *(value for one in net.modules() for value in vars(one).values())]
    assert not any(isinstance(one, torch.Tensor) and one.grad_fn is not None for one in tensors)


def test_a_mask_is_not_copied_at_each_forward(net, x, masked):
    pointers = [buffer.data_ptr() for buffer in net.buffers()]
    net(x)
    masked.compress()
    net(x)
    assert [buffer.data_ptr() for buffer in net.buffers()] == pointers
