"""Scales and zero points that ptq and qat choose, worked out by hand."""

import pytest
import torch

import tersely
from tersely.contracts.settings import QuantizationSetting
from tersely.contracts.target_plan import Origin


def target(dtype, quant_min, quant_max, scheme="symmetric", size=(-1, -1)):
    plan = tersely.TargetPlan(
        "fc",
        "weight",
        "parameter",
        "quantization",
        "ptq",
        QuantizationSetting(),
        Origin("quantization"),
    )
    return tersely.QuantizationTarget(
        plan=plan,
        quant_min=quant_min,
        quant_max=quant_max,
        dtype=dtype,
        scheme=scheme,
        blocks=tersely.Blocks(size),
        module=torch.nn.Identity(),
    )


@pytest.fixture(params=["ptq", "qat"])
def quantizer(request):
    return tersely.registry().quantizers[request.param]()


def test_a_symmetric_scale_reaches_the_larger_end(quantizer):
    qparams = quantizer.choose(
        torch.tensor([[-2.0]]), torch.tensor([[12.7]]), target("int8", -127, 127)
    )

    # 12.7 / 127
    assert qparams.scale.item() == pytest.approx(0.1)
    assert qparams.zero_point.item() == 0


def test_an_affine_range_puts_the_zero_point_where_zero_falls(quantizer):
    qparams = quantizer.choose(
        torch.tensor([[-1.0]]), torch.tensor([[4.1]]), target("uint8", 0, 255, "affine")
    )

    # 5.1 / 255, and 1 / 0.02 steps below zero
    assert qparams.scale.item() == pytest.approx(0.02)
    assert qparams.zero_point.item() == 50


def test_each_block_has_its_own_scale(quantizer):
    low, high = torch.tensor([[-7.0], [0.0]]), torch.tensor([[3.5], [1.75]])

    qparams = quantizer.choose(low, high, target("int4", -7, 7, size=(1, -1)))

    assert qparams.scale.tolist() == [[1.0], [0.25]]
    assert qparams.block_size == (1, -1)
