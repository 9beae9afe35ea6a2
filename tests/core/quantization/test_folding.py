"""Modules folded into the one before while simulated, and for good (rule Q4)."""

import copy

import pytest
import torch
from torch import nn

import tersely

X = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(1))


def build(kind, *, bias=True, affine=True):
    torch.manual_seed(0)
    if kind == "linear":
        layers = [nn.Linear(3, 2, bias=bias), nn.BatchNorm1d(2, affine=affine)]
    else:
        layers = [nn.Conv2d(3, 2, 3, bias=bias), nn.BatchNorm2d(2, affine=affine)]
        layers += [nn.ReLU()] if "relu" in kind else []
    norm = layers[1]
    norm.running_mean.uniform_(-1, 1)
    norm.running_var.uniform_(0.5, 2)
    if affine:
        with torch.no_grad():
            norm.weight.uniform_(0.5, 2)
            norm.bias.uniform_(-1, 1)
    if kind == "conv+relu":
        layers = [layers[0], nn.ReLU()]
    return nn.Sequential(*layers)


def inputs(kind):
    return X[:, :, 0, 0] if kind == "linear" else X


def fused(model, targets=("weight",), dtype="int16"):
    names = [str(index) for index in range(len(model))]
    return [
        {
            "op_names": ["0"],
            "target_names": list(targets),
            "fuse_names": [names],
            "quant_dtype": dtype,
        }
    ]


KINDS = [
    ("conv+bn", True, True),
    ("conv+bn", False, True),
    ("conv+bn", True, False),
    ("conv+bn+relu", True, True),
    ("conv+bn+relu", False, False),
    ("linear", True, True),
    ("linear", False, False),
    ("conv+relu", True, True),
]


@pytest.mark.parametrize(("kind", "bias", "affine"), KINDS)
def test_it_computes_what_the_modules_compute_one_by_one(kind, bias, affine, attach):
    model = build(kind, bias=bias, affine=affine).eval()
    expected = model(inputs(kind))
    session = attach(model, "toy_range", fused(model))
    session.compress()

    # 16 bits: a step is a 32767th of the largest weight.
    torch.testing.assert_close(model(inputs(kind)), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("kind", "bias", "affine"), KINDS)
def test_finalizing_folds_for_good(kind, bias, affine, attach):
    model = build(kind, bias=bias, affine=affine).eval()
    weight = model[0].weight
    session = attach(model, "toy_range", fused(model))
    session.compress()
    expected = model(inputs(kind))
    session.finalize()

    torch.testing.assert_close(model(inputs(kind)), expected)
    assert [type(one) for one in model] == [type(one) for one in build(kind)]
    assert model[0].weight is weight
    assert (model[0].bias is None) == (not bias)
    fresh = build(kind, bias=bias, affine=affine).eval()
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(fresh(inputs(kind)), model(inputs(kind)))


def test_a_finished_norm_changes_nothing_where_its_layer_has_a_bias(attach):
    model = build("conv+bn").eval()
    session = attach(model, "toy_range", fused(model))
    session.compress()
    session.finalize()

    values = torch.randn(4, 2, 3, 3)
    assert torch.equal(model[1](values), values)


@pytest.mark.parametrize("affine", [True, False])
def test_a_rounded_output_has_the_bias_that_only_the_norm_can_hold(affine, attach):
    model = build("conv+bn+relu", bias=False, affine=affine).eval()
    session = attach(model, "toy_range", fused(model, ("weight", "_output_"), "uint8"))
    session.calibrate([X])
    session.compress()
    expected, scale = model(X), session.qparams()["0"]["_output_"].scale.item()
    with pytest.warns(UserWarning, match=r"0\._output_"):
        session.finalize()

    assert (model(X) - expected).abs().max() <= scale * 1.001
    steps = model(X) / scale
    torch.testing.assert_close(steps, steps.round())


@pytest.mark.parametrize(("kind", "bias", "affine"), KINDS)
def test_detaching_gives_the_modules_back(kind, bias, affine, attach):
    model = build(kind, bias=bias, affine=affine).eval()
    before, parts = copy.deepcopy(model.state_dict()), list(model)
    session = attach(model, "toy_range", fused(model))
    session.compress()
    session.detach()

    assert list(model.state_dict()) == list(before)
    assert all(torch.equal(model.state_dict()[key], value) for key, value in before.items())
    assert all(one is other for one, other in zip(model, parts, strict=True))
    assert not any("_tersely" in key for part in model for key in vars(part))


@pytest.mark.parametrize(("kind", "bias", "affine"), KINDS[:-1])
@pytest.mark.parametrize("algorithm", ["toy_range", "toy_follow"])
def test_statistics_are_those_of_the_dense_model(kind, bias, affine, algorithm, attach):
    dense = build(kind, bias=bias, affine=affine)
    model = copy.deepcopy(dense)
    session = attach(model, algorithm, fused(model))
    session.compress()
    for one in (dense, model):
        one.train()
        for _ in range(3):
            one(inputs(kind))

    assert torch.equal(model[1].running_mean, dense[1].running_mean)
    assert torch.equal(model[1].running_var, dense[1].running_var)
    assert model[1].num_batches_tracked == 3


def test_a_frozen_norm_keeps_its_statistics(attach):
    model = build("conv+bn")
    before = model[1].running_mean.clone()
    session = attach(model, "toy_range", fused(model))
    session.compress()
    model.train()
    model[1].eval()
    model(X)

    assert torch.equal(model[1].running_mean, before)


def test_gradients_reach_the_layer_and_its_norm(attach):
    model = build("conv+bn+relu")
    session = attach(model, "toy_range", fused(model))
    session.compress()
    model(X).sum().backward()

    assert all(parameter.grad is not None for parameter in model.parameters())


def test_the_range_of_an_output_is_that_after_the_last_folded_module(attach):
    model = build("conv+bn+relu").eval()
    largest = model(X).max().item()
    session = attach(model, "toy_range", fused(model, ("_output_",), "uint8"))
    session.calibrate([X])
    session.compress()

    qparams = session.qparams()["0"]["_output_"]
    assert qparams.scale.item() == pytest.approx(2 * largest / 255, rel=1e-5)
    expected = model(X)
    with pytest.warns(UserWarning, match=r"0\._output_"):
        session.finalize()
    torch.testing.assert_close(model(X), expected)


def test_the_folded_weight_by_hand(attach):
    model = nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1, eps=0.0)).eval()
    with torch.no_grad():
        model[0].weight.fill_(3.0)
        model[0].bias.fill_(1.0)
        model[1].running_mean.fill_(5.0)
        model[1].running_var.fill_(4.0)
        model[1].weight.fill_(8.0)
        model[1].bias.fill_(0.5)
    session = attach(model, "toy_range", fused(model))
    session.compress()
    session.finalize()

    # 3 * 8 / 2, and (1 - 5) * 8 / 2 + 0.5
    assert model[0].weight.item() == pytest.approx(12)
    assert model[0].bias.item() == pytest.approx(-15.5)


def test_a_norm_without_statistics_is_refused(attach):
    model = nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1, track_running_stats=False))

    with pytest.raises(tersely.AttachError, match="'1' keeps no running statistics"):
        attach(model, "toy_range", fused(model))
    assert type(model[0]) is nn.Linear


def test_an_algorithm_that_changes_weights_is_given_the_folded_one(attach):
    model = build("conv+bn")
    norm, raw = model[1], model[0].weight.detach().clone()
    factors = (norm.weight / (norm.running_var + norm.eps).sqrt()).detach().view(-1, 1, 1, 1)
    session = attach(model, "toy_shift", fused(model))

    session.compress()

    # It adds one step, and what it found is kept as the raw weight that folding makes it of.
    step = session.qparams()["0"]["weight"].scale
    torch.testing.assert_close(model[0]._parameters["weight"], raw + step / factors)
    session.detach()
    assert torch.equal(model[0].weight, raw)


def test_a_saved_session_folds_again(attach, tmp_path):
    model = build("conv+bn+relu").eval()
    dense = copy.deepcopy(model)
    session = attach(model, "toy_range", fused(model, ("_input_", "weight", "_output_")))
    session.calibrate([X])
    session.compress()
    session.save(tmp_path / "session")
    tersely.load_session(dense, tmp_path / "session")

    assert torch.equal(dense(X), model(X))


def test_a_copy_folds_its_own_norm(attach):
    model = build("conv+bn")
    session = attach(model, "toy_range", fused(model))
    session.compress()
    twin = copy.deepcopy(model)
    twin.train()
    before = model[1].running_mean.clone()
    twin(X)

    assert torch.equal(model[1].running_mean, before)
    assert not torch.equal(twin[1].running_mean, before)
