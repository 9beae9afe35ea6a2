"""Transforms of torch.func over quantization-aware training: in eval mode they work."""

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad
from torch.func import functional_call, grad, hessian, jvp, vmap

import tersely
from tersely.arithmetic.fake_quantization import fake_quantize_flat

pytestmark = [
    # What torch warns of when it first computes in forward mode.
    pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning"),
]

X = torch.linspace(-1, 1, 20).reshape(5, 4)


def quantized():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
    tersely.attach(
        model, {"quantization": {"algorithm": "qat", "config_list": [{"op_types": ["Linear"]}]}}
    )
    model(X)
    return model


def parameters(model):
    return {name: one.detach() for name, one in model.named_parameters()}


def loss_of(model):
    return lambda parameters, x: functional_call(model, parameters, (x,)).square().mean()


TRANSFORMS = {
    "grad": lambda model: grad(loss_of(model))(parameters(model), X),
    "vmap": lambda model: vmap(lambda x: model(x[None])[0])(X),
    "jvp": lambda model: jvp(model, (X,), (torch.ones_like(X),)),
    "hessian": lambda model: hessian(lambda x: model(x).square().sum())(X),
}


@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
def test_a_range_that_would_move_inside_a_transform_is_an_error_that_says_what_to_do(transform):
    with pytest.raises(tersely.SessionError, match=r"0\._input_: .*torch\.func; call model\.eval"):
        transform(quantized())


def test_an_error_in_a_transform_leaves_ranges_as_they_are():
    model = quantized()
    before = {name: one.clone() for name, one in model.named_buffers()}

    with pytest.raises(tersely.SessionError):
        TRANSFORMS["grad"](model)

    assert all(torch.equal(one, before[name]) for name, one in model.named_buffers())


def test_gradients_of_a_transform_are_those_of_backward():
    model = quantized().eval()
    model(X).square().mean().backward()

    found = TRANSFORMS["grad"](model)

    for name, one in model.named_parameters():
        torch.testing.assert_close(found[name], one.grad)


def test_samples_of_a_vectorized_model_are_those_of_single_calls():
    model = quantized().eval()
    expected = torch.cat([model(one[None]) for one in X])
    torch.testing.assert_close(TRANSFORMS["vmap"](model), expected)


@pytest.mark.parametrize("zero_point", [None, torch.tensor(3)])
def test_forward_mode_passes_what_backward_passes(zero_point):
    def quantize(value):
        return fake_quantize_flat(
            value,
            torch.tensor(0.5),
            zero_point,
            quant_min=-7,
            quant_max=7,
            clip_gradient=True,
        )

    value = torch.tensor([-9.0, -2.2, 0.3, 3.4, 9.0])  # the first and the last are outside
    tangent = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])
    expected = [0.0, 2.0, 3.0, 0.0 if zero_point is not None else 4.0, 0.0]

    with forward_ad.dual_level():
        dual = quantize(forward_ad.make_dual(value, tangent))
        found = forward_ad.unpack_dual(dual).tangent

    assert found.tolist() == expected
    assert jvp(quantize, (value,), (tangent,))[1].tolist() == expected


def test_second_derivatives_in_forward_mode_are_those_of_backward_twice():
    model = quantized().eval()

    def compute(x):
        return model(x).square().sum()

    expected = torch.autograd.functional.hessian(compute, X)
    torch.testing.assert_close(hessian(compute)(X), expected)
