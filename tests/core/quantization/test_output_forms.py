"""Output channels of a module, multiplied through its own parameters: numbers by hand."""

import pytest
import torch
from torch import nn

from tersely.arithmetic.qparams import QParams
from tersely.quantization.factors.output_forms import OutputForm, divided, forms_of


def qparams(scale):
    return QParams(
        scale=torch.tensor(scale),
        zero_point=torch.zeros(torch.tensor(scale).shape, dtype=torch.int32),
        quant_min=-7,
        quant_max=7,
        dtype="int4",
        scheme="symmetric",
    )


def test_rows_and_bias_of_a_linear_layer_are_multiplied():
    layer = nn.Linear(2, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
        layer.bias.copy_(torch.tensor([5.0, 6.0]))

    OutputForm(0).multiply(layer, torch.tensor([2.0, 0.5]))

    assert layer.weight.tolist() == [[2.0, 4.0], [1.5, 2.0]]
    assert layer.bias.tolist() == [10.0, 3.0]


def test_what_multiplies_with_one_plus_weight_keeps_the_one():
    norm = nn.RMSNorm(2)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([0.0, 0.5]))

    OutputForm(0, is_offset=True).multiply(norm, torch.tensor([2.0, 4.0]))

    # (1 + 0) * 2 - 1, and (1 + 0.5) * 4 - 1
    assert norm.weight.tolist() == [1.0, 5.0]


def test_a_weight_is_rounded_so_that_its_double_is_exact():
    norm = nn.RMSNorm(3)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([0.1, -0.3, 1.7]))
    form = OutputForm(0, is_offset=True)

    form.make_exact(norm)
    before = 1 + norm.weight
    form.multiply(norm, torch.full((3,), 2.0))

    assert torch.equal(1 + norm.weight, 2 * before)
    torch.testing.assert_close(before, torch.tensor([1.1, 0.7, 2.7]))


@pytest.mark.parametrize(
    ("module", "channels", "dims"),
    [
        (nn.Linear(3, 4), 4, [0]),
        (nn.Linear(4, 4), 4, [0, 1]),
        (nn.Conv2d(3, 4, 3), 4, [0]),
        (nn.ConvTranspose2d(4, 6, 3), 6, [1]),
        (nn.LayerNorm(4), 4, [0, 0]),
        (nn.LayerNorm((4, 4)), 4, []),
        (nn.Linear(3, 4), 3, []),
        (nn.ReLU(), 4, []),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_channels_of_a_module_may_lie_where_their_number_fits(module, channels, dims):
    assert [form.dim for form in forms_of(module, channels)] in (dims, dims[:1])


def test_scales_of_channels_are_divided():
    found = divided(qparams([[2.0], [3.0]]), torch.tensor([4.0, 0.5]), dim=0, rank=2)

    assert found is not None
    assert found.scale.tolist() == [[0.5], [6.0]]


def test_channels_that_share_a_scale_cannot_be_divided():
    assert divided(qparams(2.0), torch.tensor([4.0, 0.5]), dim=0, rank=2) is None
    assert divided(qparams([[2.0, 3.0]]), torch.tensor([4.0, 0.5]), dim=0, rank=2) is None
