"""DoReFa: weights through tanh, outputs within [0, 1], gradients with few bits."""

import copy
import pickle

import pytest
import torch

import tersely
from tersely.contracts.quantized_forward import Simulates
from tersely.contracts.quantizer import ObservesRange
from tersely_quantization.dorefa import quantized_gradient


def make(**options):
    return tersely.registry().quantizers["dorefa"](**options)


def simulate(value, target, quantizer=None):
    quantizer = quantizer or make()
    qparams = quantizer.choose(value.min().detach(), value.max().detach(), target)
    return quantizer.simulate(value, qparams, target)


def test_it_simulates_and_observes():
    assert isinstance(make(), Simulates)
    assert isinstance(make(), ObservesRange)


def test_weights_go_through_tanh(make_target):
    # tanh: 0, 0.6 and -0.8 (exact for these logarithms); over 1.6 plus 0.5: 0.5, 0.875, 0.
    # uint2 has 3 steps: 1.5 -> 2 (ties to even), 2.625 -> 3, 0; 2 * level / 3 - 1.
    weight = torch.atanh(torch.tensor([0.0, 0.6, -0.8]))

    found = simulate(weight, make_target("uint2", kind="parameter"))

    assert found.tolist() == pytest.approx([1 / 3, 1.0, -1.0])


def test_outputs_are_clamped_to_between_zero_and_one(make_target):
    # uint2: thirds.
    output = torch.tensor([-1.0, 0.2, 0.4, 2.0], requires_grad=True)

    found = simulate(output, make_target("uint2"))
    found.sum().backward()

    assert found.tolist() == pytest.approx([0.0, 1 / 3, 1 / 3, 1.0])
    assert output.grad.tolist() == [0.0, 1.0, 1.0, 0.0]


def test_inputs_use_the_observed_range(make_target):
    # 3 / 15 per step, and 5 steps below zero.
    value = torch.tensor([-1.0, 0.29, 2.0])

    found = simulate(value, make_target("uint4", "affine", kind="input"))

    assert found.tolist() == pytest.approx([-1.0, 0.2, 2.0])


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int4", "uint1"])
def test_weights_of_zeros_stay_numbers(dtype, make_target):
    weight = torch.zeros(3, 4, requires_grad=True)

    found = simulate(weight, make_target(dtype, kind="parameter"))
    found.sum().backward()

    assert bool(found.isfinite().all())
    assert bool(weight.grad.isfinite().all())


def test_masked_weights_stay_zero_with_a_signed_type(make_target):
    weight = torch.tensor([0.0, 0.3, -0.9])

    assert simulate(weight, make_target("int4", kind="parameter"))[0].item() == 0.0
    assert simulate(weight, make_target("uint4", kind="parameter"))[0].item() != 0.0


@pytest.mark.parametrize("kind", ["parameter", "buffer", "input", "output"])
@pytest.mark.parametrize("dtype", ["int2", "int4", "int8", "int16", "uint1", "uint8", "uint15"])
@pytest.mark.parametrize("scheme", ["symmetric", "affine"])
def test_integers_read_back_are_what_forward_computes_with(kind, dtype, scheme, make_target):
    value = torch.randn(40, 30, generator=torch.Generator().manual_seed(0))
    quantizer, target = make(), make_target(dtype, scheme, kind=kind)
    qparams = quantizer.choose(value.min(), value.max(), target)

    integers, read = quantizer.integers(value, qparams, target)

    simulated = quantizer.simulate(value, qparams, target)
    assert torch.equal((integers - read.zero_point) * read.scale, simulated)
    assert read.quant_min <= int(integers.min())
    assert int(integers.max()) <= read.quant_max
    assert tersely.fake_quantize(simulated, read).sub(simulated).abs().max() < 1e-6


def test_weights_without_a_sign_are_odd_integers_of_one_bit_more(make_target):
    quantizer, target = make(), make_target("uint4", kind="parameter")
    weight = torch.linspace(-2, 2, 101)
    qparams = quantizer.choose(weight.min(), weight.max(), target)

    integers, read = quantizer.integers(weight, qparams, target)

    assert (read.dtype, read.quant_min, read.quant_max) == ("int5", -15, 15)
    assert read.scale.item() == pytest.approx(1 / 15)
    assert sorted(set(integers.tolist())) == list(range(-15, 16, 2))


def test_weights_with_a_sign_are_integers_of_their_own_type(make_target):
    quantizer, target = make(), make_target("int4", kind="parameter")
    weight = torch.linspace(-2, 2, 101)
    qparams = quantizer.choose(weight.min(), weight.max(), target)

    integers, read = quantizer.integers(weight, qparams, target)

    assert (read.dtype, read.quant_min, read.quant_max) == ("int4", -7, 7)
    assert read.scale.item() == pytest.approx(1 / 7)
    assert sorted(set(integers.tolist())) == list(range(-7, 8))


@pytest.mark.parametrize(
    ("dtype", "words"),
    [
        ("float8_e5m2", "dorefa needs equal steps, which quant_dtype float8_e5m2 does not have"),
        ("uint16", "beyond the 16 bits there are; write int16 or uint15"),
    ],
)
def test_types_that_do_not_suit_are_refused(dtype, words, make_target):
    with pytest.raises(tersely.PlanError, match=words):
        simulate(torch.ones(2), make_target(dtype, kind="parameter"))


def test_gradients_are_rounded_to_few_values_in_each_sample():
    # 1 bit: -max or max. Row one: 0.3 / 2 + 0.5 = 0.65 -> 1, times 2 * 1. Row two is half of it.
    gradient = torch.tensor([[0.3, -1.0], [0.15, -0.5]])

    found = quantized_gradient(gradient, torch.zeros(2, 2), bits=1)

    assert found.tolist() == [[1.0, -1.0], [0.5, -0.5]]


def test_noise_decides_between_neighbours():
    # 2 bits: 0.5 / 2 + 0.5 is 2.25 of 3 steps; a third of the range from -1 to 1 a step.
    gradient = torch.tensor([[0.5, 1.0]])

    low, high = (
        quantized_gradient(gradient, torch.full((1, 2), noise), bits=2) for noise in (0.0, 0.4)
    )

    assert low[0, 0].item() == pytest.approx(1 / 3)
    assert high[0, 0].item() == pytest.approx(1.0)


def test_a_sample_without_gradient_stays_without():
    gradient = torch.tensor([[0.0, 0.0], [1.0, 0.5]])

    found = quantized_gradient(gradient, torch.full((2, 2), 0.49), bits=2)

    assert found[0].tolist() == [0.0, 0.0]
    assert bool(found.isfinite().all())


def gradients(quantizer, make_target, times=1):
    found = []
    for _ in range(times):
        output = torch.linspace(0.1, 0.9, 64).reshape(4, 16).requires_grad_()
        result = simulate(output, make_target("uint8"), quantizer)
        (gradient,) = torch.autograd.grad(result.sin().sum(), output)
        found.append(gradient)
    return found


def test_gradients_stay_as_they_are_by_default(make_target):
    (gradient,) = gradients(make(), make_target)

    assert len(gradient.unique()) > 60


def test_gradients_of_outputs_are_quantized_when_asked_for(make_target):
    (gradient,) = gradients(make(gradient_bits=2), make_target)

    assert all(len(row.unique()) <= 4 for row in gradient)


def test_noise_follows_from_the_seed_alone(make_target):
    state = torch.random.get_rng_state()
    one, other = (gradients(make(gradient_bits=3, seed=7), make_target, 2) for _ in range(2))
    (third,) = gradients(make(gradient_bits=3, seed=8), make_target)

    assert torch.equal(one[0], other[0])
    assert torch.equal(one[1], other[1])
    assert not torch.equal(one[0], one[1])
    assert not torch.equal(one[0], third)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_it_can_be_copied_and_pickled(make_target):
    quantizer = make(gradient_bits=3)
    gradients(quantizer, make_target)

    for copied in (copy.deepcopy(quantizer), pickle.loads(pickle.dumps(quantizer))):
        assert copied.drawn == 1


@pytest.mark.golden(
    "quant.pt", select=lambda case: case["name"] in ("dorefa_input", "dorefa_weight_input")
)
def test_a_model_computes_what_the_reference_does(case, golden, make_target):
    """Up to the noise on gradients; the reference takes the range of each batch's own input."""
    (entry,) = case["config_list"]
    dtype, scheme = entry["quant_dtype"], entry["quant_scheme"]
    model = golden.model(case)

    def run(batch, **changes):
        value = simulate(batch, make_target(dtype, scheme, kind="input"))
        state = dict(model.named_parameters()) | changes
        if "weight" in entry["target_names"]:
            state["fc.weight"] = simulate(state["fc.weight"], make_target(dtype, kind="parameter"))
        return torch.func.functional_call(model, state, value)

    loss = golden.models.loss_fn(case["train"][0], run)
    assert loss.item() == pytest.approx(case["losses"][0])
    torch.testing.assert_close(run(case["x"], **case["final_params"]), case["y"])
