"""Biases that make up for what rounding shifts on average."""

import pytest
import torch
from torch import nn

import tersely


def correcting():
    return tersely.registry().quantizers["ptq"](bias_correction=True)


def test_the_shift_is_the_error_times_the_mean_input(linear_target, see):
    # E[x] = (2, 3); errors (0.4, 0) and (-0.25, 0.5).
    target = linear_target([[1.4, 2.0], [0.75, 2.5]])
    quantizer = correcting()
    target = see(quantizer, target, torch.tensor([[1.0, 2.0], [3.0, 4.0]]))

    found = quantizer.bias_correction(target, torch.tensor([[1.0, 2.0], [1.0, 2.0]]))

    # 0.4 * 2, and -0.25 * 2 + 0.5 * 3
    torch.testing.assert_close(found, torch.tensor([0.8, 1.0]))


def test_batches_of_different_sizes_weigh_by_their_vectors(linear_target, see):
    target = linear_target([[1.0]])
    quantizer = correcting()
    target = see(quantizer, target, torch.tensor([[1.0]]), torch.tensor([[3.0], [5.0]]))

    found = quantizer.bias_correction(target, torch.tensor([[0.0]]))

    assert found.tolist() == [3.0]


@pytest.mark.parametrize(
    "module",
    [
        nn.Linear(8, 4),
        nn.Conv2d(8, 6, 3, stride=2, padding=1, groups=2),
        nn.ConvTranspose2d(8, 6, 2, stride=2, groups=2),
    ],
)
def test_outputs_have_the_mean_of_the_dense_module(module, make_target, see):
    generator = torch.Generator().manual_seed(0)
    is_linear = isinstance(module, nn.Linear)
    shape = (3, 8) if is_linear else (3, 8, 6, 6)
    inputs = torch.randn(shape, generator=generator) + 1
    size = (-1, -1) if is_linear else (-1, -1, -1, -1)
    target, quantizer = make_target(module, size=size), correcting()
    rounded = torch.round(target.tensor * 8) / 8

    shift = quantizer.bias_correction(see(quantizer, target, inputs), rounded)

    with torch.no_grad():
        dense = module(inputs)
        corrected = torch.func.functional_call(
            module, {"weight": rounded, "bias": module.bias + shift}, (inputs,)
        )
    others = [dim for dim in range(dense.ndim) if dim != 1]
    torch.testing.assert_close(corrected.mean(others), dense.mean(others))


def test_an_embedding_has_nothing_to_correct(make_target):
    target = make_target(nn.Embedding(4, 3), size=(-1, -1))

    assert correcting().observe_input(torch.ones(2, 3), target) == {}


def test_correcting_before_calibration_is_refused(linear_target):
    target = linear_target(torch.ones(2, 3))

    with pytest.raises(tersely.SessionError, match=r"call session.calibrate\(batches\)"):
        correcting().bias_correction(target, torch.ones(2, 3))


def bias_corrected():
    """Return a layer with a corrected bias, the bias from before, and its session."""
    torch.manual_seed(0)
    layer = nn.Linear(8, 4)
    before = layer.bias.detach().clone()
    entry = {"op_types": ["Linear"], "target_names": ["weight"], "quant_dtype": "int4"}
    session = tersely.quantize(
        layer, [entry], options={"bias_correction": True}, data=[torch.randn(16, 8) + 1]
    )
    return layer, before, session


def test_another_correction_replaces_the_one_before():
    layer, before, session = bias_corrected()
    once = layer.bias.detach().clone()
    assert not torch.equal(once, before)

    session.compress()
    session.compress()

    torch.testing.assert_close(layer.bias.detach(), once)


def test_another_correction_keeps_what_training_has_added(tmp_path):
    layer, _, session = bias_corrected()
    with torch.no_grad():
        layer.bias.add_(1)
    trained = layer.bias.detach().clone()
    session.save(tmp_path)
    torch.manual_seed(0)
    again = nn.Linear(8, 4)  # the same weight; the session brings the bias
    loaded = tersely.load_session(again, tmp_path)
    torch.testing.assert_close(again.bias.detach(), trained)

    loaded.compress()

    torch.testing.assert_close(again.bias.detach(), trained)
