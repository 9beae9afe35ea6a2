"""Targets of the algorithms that solve for weights, as the engine hands them over."""

import pytest
import torch
from torch import nn

import tersely
from tersely.arithmetic.quantized_types import quantized_range
from tersely.contracts.settings import QuantizationSetting
from tersely.contracts.target_plan import Origin

TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def _target(module, *, size, dtype="int4", scheme="symmetric", tensor=None, name="weight"):
    tensor = getattr(module, name).detach() if tensor is None else tensor
    is_transposed = isinstance(module, TRANSPOSED)
    plan = tersely.TargetPlan(
        "layer",
        name,
        "parameter",
        "quantization",
        "under_test",
        QuantizationSetting(),
        Origin("quantization"),
        shape=tuple(tensor.shape),
        module_type=type(module).__name__,
        output_dim=1 if is_transposed else 0,
        input_dim=0 if is_transposed else 1,
        channel_dim=-1 if isinstance(module, nn.Linear) else 1,
    )
    limits = quantized_range(dtype)
    return tersely.QuantizationTarget(
        plan=plan,
        quant_min=limits.quant_min,
        quant_max=limits.quant_max,
        dtype=dtype,
        scheme=scheme,
        blocks=tersely.Blocks(size),
        module=module,
        tensor=tensor,
    )


@pytest.fixture
def make_target():
    """Make a target of a module's weight."""
    return _target


@pytest.fixture
def linear_target():
    """Make a target of a linear layer with a given weight."""

    def make(weight, **options):
        weight = torch.as_tensor(weight)
        module = nn.Linear(weight.shape[1], weight.shape[0], bias=False, dtype=weight.dtype)
        return _target(module, tensor=weight, **({"size": (1, -1)} | options))

    return make


@pytest.fixture
def see():
    """Let a quantizer observe inputs of a target, as calibration does."""

    def observe(quantizer, target, *batches):
        total = {}
        for batch in batches:
            part = quantizer.observe_input(batch, target)
            if hasattr(quantizer, "merge") and total:
                total = quantizer.merge(total, part)
            else:
                total = {key: total.get(key, 0) + value for key, value in part.items()}
        return target.evolve(observed=total)

    return observe


@pytest.fixture
def output_error():
    """What a changed weight does to the outputs of its module, squared and summed."""

    def error(target, changed, inputs):
        module = target.module
        keep = {name: value for name, value in module.named_parameters() if name != "weight"}
        with torch.no_grad():
            dense, found = (
                torch.func.functional_call(module, keep | {"weight": weight}, (inputs,))
                for weight in (target.tensor, changed)
            )
        return float((dense - found).double().square().sum())

    return error
