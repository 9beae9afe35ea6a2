"""Binarized networks: signs, and the gradients that pass them."""

import pytest
import torch

import tersely
from tersely.contracts.quantized_forward import Simulates
from tersely.contracts.quantized_weights import ChangesAfterStep


def make():
    return tersely.registry().quantizers["bnn"]()


def simulate(value, target):
    qparams = make().choose(value.min().detach(), value.max().detach(), target)
    return make().simulate(value, qparams, target)


def test_it_simulates_and_changes_parameters_after_a_step():
    assert isinstance(make(), Simulates)
    assert isinstance(make(), ChangesAfterStep)


def test_zero_counts_as_positive(make_target):
    found = simulate(torch.tensor([0.0, -0.0, -1e-9, 3.0]), make_target(kind="parameter"))

    assert found.tolist() == [1.0, 1.0, -1.0, 1.0]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("parameter", [1.0] * 4), ("output", [0.0, 1.0, 1.0, 0.0]), ("input", [0.0, 1.0, 1.0, 0.0])],
)
def test_gradients_pass_parameters_and_what_is_within_one(kind, expected, make_target):
    value = torch.tensor([-1.5, -1.0, 0.2, 1.01], requires_grad=True)

    simulate(value, make_target(kind=kind)).sum().backward()

    assert value.grad.tolist() == expected


def test_parameters_are_clamped_after_a_step(make_target):
    parameter = torch.nn.Parameter(torch.tensor([-3.0, 0.5, 1.2]))

    with torch.no_grad():
        make().after_step(parameter, make_target(kind="parameter"))

    assert parameter.tolist() == [-1.0, 0.5, 1.0]


@pytest.mark.parametrize("dtype", ["int8", "uint1", "uint8", "float8_e4m3fn"])
def test_signs_are_stored_as_int2(dtype, make_target):
    value, target = torch.tensor([[0.0, -2.0], [0.3, -0.1]]), make_target(dtype, kind="parameter")
    qparams = make().choose(value.min(), value.max(), target)

    integers, read = make().integers(value, qparams, target)

    assert (read.dtype, read.quant_min, read.quant_max) == ("int2", -1, 1)
    assert integers.tolist() == [[1, -1], [1, -1]]
    simulated = make().simulate(value, qparams, target)
    assert torch.equal((integers - read.zero_point) * read.scale, simulated)


def test_the_dtype_of_values_stays(make_target):
    assert simulate(torch.ones(2).bfloat16(), make_target()).dtype == torch.bfloat16


@pytest.mark.golden("quant.pt", select=lambda case: case["name"] == "bnn")
def test_training_goes_as_in_the_reference(case, golden, make_target):
    model = golden.model(case)
    weight, output = make_target(kind="parameter"), make_target(kind="output")

    def run(batch):
        state = dict(model.named_parameters())
        state["fc.weight"] = simulate(state["fc.weight"], weight)
        return simulate(torch.func.functional_call(model, state, batch), output)

    optimizer = torch.optim.SGD(model.parameters(), lr=case["lr"])
    losses = []
    for step in range(case["steps"]):
        optimizer.zero_grad()
        loss = golden.models.loss_fn(case["train"][step % len(case["train"])], run)
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            make().after_step(model.fc.weight, weight)
        losses.append(loss.item())

    assert losses == pytest.approx(case["losses"])
    for name, expected in case["final_params"].items():
        torch.testing.assert_close(model.get_parameter(name).detach(), expected)
    torch.testing.assert_close(run(case["x"]).detach(), case["y"])
