"""The real integers of simulated weights."""

from __future__ import annotations

import attrs
import torch
from torch import Tensor

from tersely.arithmetic.affine import dequantize, quantize
from tersely.arithmetic.qparams import QParams
from tersely.engine.targets.binding import BoundTarget
from tersely.instrument.names import UNSCALE
from tersely.instrument.scales.input_scales import along_inputs
from tersely.instrument.transforms import chain_of, processed
from tersely.quantization.ranges import values_of
from tersely.quantization.returned_values import check_integers
from tersely.quantization.run import QuantizationRun
from tersely.quantization.scale_buffers import read_buffer
from tersely.quantization.targets import target_of


@attrs.frozen(eq=False)
class IntegerTensor:
    """A quantized parameter as integers.

    Attributes:
        values: the integers, the parameter's shape, in the smallest integer type that holds
            them; the float8 type for float8.
        qparams: how they are read.
        input_scale: None, or what the input channels of the integers' inputs are divided by,
            shape (inputs,).
        input_dim: the dimension of input channels.
        divides_weight: whether forward divides the weight by ``input_scale`` instead of the input.
        dtype: the parameter's own dtype.
    """

    values: Tensor
    qparams: QParams
    input_scale: Tensor | None = None
    input_dim: int = 1
    divides_weight: bool = False
    dtype: torch.dtype = torch.float32

    def dequantize(self) -> Tensor:
        """Return the weight that forward computes with, bit for bit."""
        value = dequantize(self.values, self.qparams).to(self.dtype)
        if self.input_scale is None or not self.divides_weight:
            return value
        return value / along_inputs(self.input_scale, value, self.input_dim)


def integers_of(run: QuantizationRun, bound: BoundTarget, qparams: QParams) -> IntegerTensor:
    """Return the integers of one parameter.

    Args:
        run: the stage.
        bound: a quantized parameter or buffer.
        qparams: its parameters in force.
    """
    value = values_of(bound)
    simulating = run.simulating()
    qparams = qparams.evolve(scale=qparams.scale.detach(), zero_point=qparams.zero_point.detach())
    with torch.no_grad():
        if simulating is not None:
            target = target_of(bound, run.grid(bound))
            simulated = simulating.simulate(value, qparams, target)
            integers, qparams = check_integers(
                *simulating.integers(value, qparams, target), simulated, target
            )
        else:
            integers = quantize(value, qparams)
    steps = chain_of(bound.module, bound.plan.target)
    factors = read_buffer(bound, "input_scale")
    return IntegerTensor(
        values=integers,
        qparams=qparams,
        input_scale=None if factors is None else factors.clone(),
        input_dim=bound.plan.input_dim,
        divides_weight=any(step.place == UNSCALE for step in steps),
        dtype=bound.raw.dtype,
    )


def simulated_values(bound: BoundTarget) -> Tensor:
    """Return a parameter as forward computes with it.

    Args:
        bound: a parameter or buffer target.
    """
    with torch.no_grad():
        return processed(bound.module, bound.plan.target, bound.dense())
