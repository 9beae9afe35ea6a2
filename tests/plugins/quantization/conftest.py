"""Targets as quantizers and their observers see them."""

import pytest
import torch

import tersely
from tersely.arithmetic.quantized_types import quantized_range
from tersely.contracts.settings import QuantizationSetting
from tersely.contracts.target_plan import Origin


@pytest.fixture
def make_target():
    """Make a target of a given kind, dtype, scheme and block size."""

    def make(dtype="int8", scheme="symmetric", *, kind="output", size=(-1, -1), **fields):
        limits = quantized_range(dtype)
        plan = tersely.TargetPlan(
            "fc",
            "_output_",
            kind,
            "quantization",
            "ptq",
            QuantizationSetting(),
            Origin("quantization"),
        )
        return tersely.QuantizationTarget(
            plan=plan,
            quant_min=limits.quant_min,
            quant_max=limits.quant_max,
            dtype=dtype,
            scheme=scheme,
            blocks=tersely.Blocks(size),
            module=torch.nn.Identity(),
            **fields,
        )

    return make
