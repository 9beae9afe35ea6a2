"""`session.suspended()`: the dense model for a while, and afterwards what was in force before."""

import copy
import threading

import pytest
import torch
from torch import nn

import tersely

LINEAR = {"op_types": ["Linear"]}
RECIPE = {
    "pruning": {
        "algorithm": "movement",
        "options": {"warmup_steps": 0, "cooldown_begin_step": 4},
        "config_list": [LINEAR | {"target_names": ["weight"], "sparse_ratio": 0.5}],
    },
    "quantization": {"algorithm": "lsq", "config_list": [LINEAR]},
    "distillation": {"config_list": [{"op_names": ["2"]}]},
}


def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))


@pytest.fixture
def data():
    return torch.randn(5, 6, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def model():
    return build()


@pytest.fixture
def pruned(model):
    return tersely.prune(model, [LINEAR | {"sparse_ratio": 0.5}], algorithm="level")


@pytest.fixture
def everything(model, data):
    session = tersely.attach(model, RECIPE, teacher=build())
    session.calibrate([data])
    session.compress()
    return session


def test_inside_the_model_is_dense_and_afterwards_compressed_bit_for_bit(everything, model, data):
    model.eval()
    dense, compressed = build().eval()(data), model(data)
    assert not torch.equal(dense, compressed)
    buffers = dict(model.named_buffers())
    with everything.suspended():
        assert torch.equal(model(data), dense)
        assert [type(one) for one in model] == [nn.Linear, nn.ReLU, nn.Linear]
    assert torch.equal(model(data), compressed)
    after = dict(model.named_buffers())
    assert after.keys() == buffers.keys()
    assert all(after[name] is buffers[name] for name in after)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_exception_inside_ends_the_suspension(everything, model, data, error):
    before = model(data)
    with pytest.raises(error), everything.suspended():
        raise error
    assert torch.equal(model(data), before)


def test_a_suspension_inside_another_one_does_nothing(pruned, model, data):
    before, dense = model(data), build()(data)
    with pruned.suspended():
        with pruned.suspended():
            assert torch.equal(model(data), dense)
        assert torch.equal(model(data), dense)
    assert torch.equal(model(data), before)


@pytest.mark.parametrize(
    "call", ["step", "compress", "masks", "learned", "finalize", "detach", "loss", "report"]
)
def test_a_call_inside_that_needs_the_compressed_model_says_so(everything, model, data, call):
    before = model(data)
    with (
        everything.suspended(),
        pytest.raises(tersely.SessionError, match=rf"{call}\(\) was called inside 'with session"),
    ):
        getattr(everything, call)()
    assert torch.equal(model(data), before)


def test_a_suspended_session_still_tells_whether_it_was_compressed(everything):
    with everything.suspended():
        assert everything.is_compressed
        assert "suspended" in repr(everything)


@pytest.mark.parametrize("end", ["finalize", "detach"])
def test_a_session_that_has_ended_cannot_be_suspended(pruned, end):
    getattr(pruned, end)()
    with pytest.raises(tersely.SessionError, match="needs an attached"), pruned.suspended():
        pass


def test_batch_norms_that_are_folded_while_simulated_run_inside(data):
    def network():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU())
        net[1].running_mean.uniform_(-1, 1)
        net[1].weight.data.uniform_(1, 2)
        return net

    model = network()
    entry = {"op_names": ["0"], "fuse_names": [["0", "1", "2"]]}
    session = tersely.attach(model, {"quantization": {"algorithm": "qat", "config_list": [entry]}})
    model.train()
    model(data)
    session.step()
    model.eval()
    folded, mean = model(data), model[1].running_mean.clone()
    dense = network().eval()
    dense[1].load_state_dict({k: model[1].state_dict()[k] for k in dense[1].state_dict()})
    with session.suspended():
        assert torch.equal(model(data), dense(data))
    assert torch.equal(model(data), folded)
    assert torch.equal(model[1].running_mean, mean)


def test_a_checkpoint_saved_inside_is_dense(everything, model, tmp_path):
    with everything.suspended():
        torch.save(model.state_dict(), tmp_path / "dense.pt")
    saved = torch.load(tmp_path / "dense.pt", weights_only=True)
    assert saved.keys() == build().state_dict().keys()
    assert all(torch.equal(saved[name], value) for name, value in build().state_dict().items())


def test_a_copy_made_inside_is_a_plain_model_to_attach_to(everything, model, data):
    with everything.suspended():
        other = copy.deepcopy(model)
    assert torch.equal(other(data), build()(data))
    tersely.prune(other, [LINEAR | {"sparse_ratio": 0.5}], algorithm="level")


def test_taps_hold_what_they_held_whatever_runs_inside(everything, model, data):
    model(data)
    everything.teacher_forward(data)
    expected = everything.loss()
    model(data)
    everything.teacher_forward(data)
    with everything.suspended():
        model(data * 3)
        everything.teacher(data * 3)
    assert torch.equal(everything.loss(), expected)


def test_what_is_written_into_parameters_inside_stays(pruned, model):
    masks = pruned.masks()
    with pruned.suspended():
        with torch.no_grad():
            model[0].weight.fill_(2.0)
        model[2].weight.data.clamp_(-0.1, 0.1)
    assert torch.equal(model[0].weight, masks["0"]["weight"] * 2.0)
    dense = pruned.detach()
    assert bool((dense[0].weight == 2.0).all())
    assert bool((dense[2].weight.abs() <= 0.1).all())


def test_training_inside_trains_the_dense_weights(pruned, model, data):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    masked = ~pruned.masks()["0"]["weight"]
    before = build()[0].weight.detach()
    with pruned.suspended():
        model(data).square().mean().backward()
        optimizer.step()
    assert not torch.equal(pruned.detach()[0].weight[masked], before[masked])


def test_masks_and_scales_follow_a_model_that_moves_inside(everything, model, data):
    leaves = everything.learned()
    with everything.suspended():
        model.double()
    output = model(data.double())
    assert output.dtype == torch.float64
    assert {one.dtype for one in everything.qparams()["0"].values() for one in [one.scale]} == {
        torch.float32
    }
    assert all(everything.learned()[name] is leaf for name, leaf in leaves.items())


def test_masks_of_modules_without_parameters_follow_a_model_that_moves_inside(model, data):
    entry = {
        "op_names": ["1"],
        "target_names": ["_output_"],
        "sparse_ratio": 0.5,
        "granularity": "per_channel",
    }
    session = tersely.prune(model, [entry], algorithm="l1_norm", data=[data])
    with session.suspended():
        model.double()
    assert model(data.double()).dtype == torch.float64


def test_hooks_that_are_registered_inside_stay(pruned, model, data):
    seen = []
    with pruned.suspended():
        model[0].register_forward_pre_hook(lambda module, args: seen.append(module))
    model(data)
    assert seen == [model[0]]


def test_a_session_attached_inside_has_to_end_inside(pruned, model, data):
    before = model(data)
    with pruned.suspended():
        other = tersely.prune(model, [LINEAR | {"sparse_ratio": 0.25}], algorithm="level")
        other.detach()
    assert torch.equal(model(data), before)
    with (
        pytest.raises(tersely.SessionError, match="'0' was instrumented by another session"),
        pruned.suspended(),
    ):
        tersely.prune(model, [LINEAR | {"sparse_ratio": 0.25}], algorithm="level")
    assert torch.equal(model(data), before)


def test_a_class_that_another_tool_puts_on_top_inside_stays_on_top(pruned, model, data):
    before = model(data)

    class Wrapped:
        is_wrapped = True

    with pruned.suspended():
        model[0].__class__ = type("WrappedLinear", (Wrapped, nn.Linear), {})
    assert model[0].is_wrapped
    assert torch.equal(model(data), before)
    pruned.detach()
    assert model[0].is_wrapped
    assert torch.equal(model(data), build()(data))


def test_the_model_is_dense_for_every_thread(pruned, model, data):
    found = []
    with pruned.suspended():
        thread = threading.Thread(target=lambda: found.append(model(data)))
        thread.start()
        thread.join()
    assert torch.equal(found[0], build()(data))


def test_fused_encoder_layers_are_kept_off_again_afterwards():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    data = torch.randn(2, 3, 8)
    entry = {"op_names": ["linear1"], "target_names": ["_input_"], "quant_dtype": "int4"}
    session = tersely.quantize(layer, [entry], algorithm="ptq", data=[data])
    with torch.no_grad():
        before = layer(data)
        with session.suspended():
            inside = layer(data)
        assert torch.equal(layer(data), before)
    assert not torch.equal(inside, before)


def test_weights_that_are_masked_in_place_are_dense_inside(model):
    stage = {"algorithm": "level", "hold": "step", "config_list": [LINEAR | {"sparse_ratio": 0.5}]}
    session = tersely.attach(model, {"pruning": stage})
    session.compress()
    masked = model[0].weight.detach().clone()
    with session.suspended():
        assert torch.equal(model[0].weight, build()[0].weight)
    assert torch.equal(model[0].weight, masked)
    assert torch.equal(session.detach()[0].weight, build()[0].weight)
