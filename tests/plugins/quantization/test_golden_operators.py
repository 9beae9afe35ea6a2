"""The quantizing functions of the reference, on its stored tensors: values and gradients."""

import pytest
import torch

import tersely

SIZES = {"tensor": None, "block4x4": (4, 4), "out_channel": (1, -1)}


def starts_with(prefix):
    return lambda case: case["name"].startswith(prefix)


def parameters_of(case):
    return tersely.QParams(
        scale=case["scale"],
        zero_point=case["zero_point"].round().int(),
        quant_min=case["qmin"],
        quant_max=case["qmax"],
        dtype=case["dtype"],
        scheme="affine",
        block_size=SIZES[case["granularity"]],
    )


def differentiate(case, name, make_target):
    """Values, and gradients to the input and to what is learned."""
    quantizer = tersely.registry().quantizers[name]()
    value = case["x"].clone().requires_grad_()
    learned = {"scale": case["scale"].clone().requires_grad_()}
    if name == "lsq_plus":
        learned["zero_point"] = case["zero_point"].clone().requires_grad_()
    result = quantizer.learned_values(value, parameters_of(case), learned, make_target())
    result.backward(case["grad_out"])
    return result.detach(), value.grad, {key: one.grad for key, one in learned.items()}


@pytest.mark.golden("quant_ops.pt", select=starts_with("lsq_int"))
def test_lsq_agrees_with_the_reference(case, make_target):
    compare_lsq(case, make_target)


@pytest.mark.golden("quant_ops.pt", select=starts_with("lsq_uint"))
def test_lsq_without_a_sign_agrees_with_the_reference(case, make_target):
    compare_lsq(case, make_target)


def compare_lsq(case, make_target):
    values, to_value, to_learned = differentiate(case, "lsq", make_target)

    assert torch.equal(values, case["y"])
    assert torch.equal(to_value, case["grad_x"])
    torch.testing.assert_close(to_learned["scale"], case["grad_scale"])


@pytest.mark.golden("quant_ops.pt", select=starts_with("lsq_plus"))
def test_lsq_plus_agrees_where_a_rounded_zero_point_clamps_the_same(case, make_target):
    """The reference's zero points are fractions and stay so.

    Its values and its gradients to the scale hold that fraction and cannot be compared. Gradients
    to the value and to the zero point depend only on what is clamped: they are compared in the
    blocks in which the fraction and the nearest integer clamp the same elements.
    """
    _, to_value, to_learned = differentiate(case, "lsq_plus", make_target)
    size, shape = SIZES[case["granularity"]], case["x"].shape
    position = case["x"] / tersely.expand_blocks(case["scale"], size, shape)
    clamped = []
    for zero_point in (case["zero_point"], case["zero_point"].round()):
        place = position + tersely.expand_blocks(zero_point, size, shape)
        clamped.append((place < case["qmin"]).int() - (place > case["qmax"]).int())
    is_same = tersely.sum_blocks((clamped[0] != clamped[1]).int(), size) == 0

    compared = {"lsq_plus_int4_out_channel": 7, "lsq_plus_int2_block4x4": 0}
    assert int(is_same.sum()) == compared.get(case["name"], is_same.numel())
    torch.testing.assert_close(to_learned["zero_point"][is_same], case["grad_zero_point"][is_same])
    elements = tersely.expand_blocks(is_same, size, shape)
    assert torch.equal(to_value[elements], case["grad_x"][elements])


@pytest.mark.golden("quant_ops.pt", select=starts_with("dorefa"))
def test_dorefa_agrees_with_the_reference(case, make_target):
    kind = "parameter" if case["fn"] == "dorefa_weight" else "output"
    compare_simulated(case, "dorefa", make_target(case["dtype"], "affine", kind=kind))


@pytest.mark.golden("quant_ops.pt", select=starts_with("bnn"))
def test_bnn_agrees_with_the_reference(case, make_target):
    compare_simulated(case, "bnn", make_target(kind=case["target"]))


def compare_simulated(case, name, target):
    quantizer = tersely.registry().quantizers[name]()
    qparams = quantizer.choose(torch.tensor(-3.0), torch.tensor(3.0), target)
    value = case["x"].clone().requires_grad_()

    result = quantizer.simulate(value, qparams, target)
    result.backward(case["grad_out"])

    torch.testing.assert_close(result.detach(), case["y"])
    torch.testing.assert_close(value.grad, case["grad_x"])
    if "scale" in case:
        assert torch.equal(qparams.scale, case["scale"])
        assert qparams.zero_point.item() == case["zero_point"].item()
