"""DoReFa-Net: weights through tanh, activations within [0, 1], gradients with few bits."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

import tersely
from tersely.contracts import ClipsGradients, ObservesRange, Simulates
from tersely_quantization.learning.straight_through import straight_through
from tersely_quantization.observers.by_name import make_observer

_LARGEST_BITS = 16
_SPREAD = 2654435761  # separates the calls of one seed from those of the next
_INTEGER = re.compile(r"(u?)int(\d+)\Z")


class DoReFa(ObservesRange, Simulates, ClipsGradients):
    """Quantizes tanh(weight), scaled to [0, 1], and outputs clamped to [0, 1].

    Zhou et al., DoReFa-Net: Training Low Bitwidth Convolutional Neural Networks with Low Bitwidth
    Gradients, arXiv 2016, sections 2.3 to 2.5; n = quant_max - quant_min steps from 0 to 1
    (for ``uintk`` the paper's 2^k - 1). Departs from the paper: 1-bit weights have no scale of
    their own; inputs are quantized with the observed range; only gradients of outputs are
    quantized, and only on request. Weights of ``uintk`` cannot be zero, those of ``intk`` can.

    Args:
        gradient_bits: the bits of the gradients of outputs, or None to leave them unchanged; with
            it, outputs do not compile as one graph.
        seed: the seed of the noise that is added to gradients before rounding.
        observer: the observer of inputs.
        observer_options: the observer's options.
    """

    def __init__(
        self,
        *,
        gradient_bits: int | None = None,
        seed: int = 0,
        observer: str = "min_max",
        observer_options: Mapping[str, Any] | None = None,
    ) -> None:
        self.gradient_bits = gradient_bits
        self.seed = seed
        self.drawn = 0
        self.observer_name = observer
        self.observer_options = dict(observer_options or {})

    def observer(self, target: tersely.QuantizationTarget) -> tersely.Observer:
        """Return the observer of one target's values."""
        return make_observer(self.observer_name, self.observer_options)

    def choose(
        self, low: Tensor, high: Tensor, target: tersely.QuantizationTarget
    ) -> tersely.QParams:
        """Return the scale of [0, 1], or for an input that of the observed range.

        Args:
            low: shape (blocks along each dimension), float, the smallest value seen.
            high: the same shape, the largest value seen.
            target: the tensor to quantize.

        Raises:
            PlanError: the dtype has no equal steps, or its weights need more than 16 bits.
        """
        qparams = tersely.choose_qparams(low, high, target)
        if target.plan.kind == "input":
            return qparams
        _check_dtype(target)
        steps = target.quant_max - target.quant_min
        return qparams.evolve(
            scale=torch.full_like(qparams.scale, 1 / steps),
            zero_point=torch.full_like(qparams.zero_point, target.quant_min),
        )

    def simulate(
        self, value: Tensor, qparams: tersely.QParams, target: tersely.QuantizationTarget
    ) -> Tensor:
        """Return the values that forward computes with.

        Args:
            value: the tensor, masked, any float dtype.
            qparams: the result of `choose`.
            target: the target.
        """
        if target.plan.kind == "input":
            return tersely.fake_quantize(value, qparams)
        if target.plan.kind == "output":
            result = tersely.fake_quantize(value.clamp(0, 1), qparams)
            if self.gradient_bits is not None and result.requires_grad:
                result.register_hook(self._few_bits)  # type: ignore[no-untyped-call]  # torch has no types here
            return result
        share = _share(value, qparams)
        integers, scale = _weight_integers(share.detach(), qparams)
        return straight_through(2 * share - 1, integers * scale).to(value.dtype)

    def integers(
        self, value: Tensor, qparams: tersely.QParams, target: tersely.QuantizationTarget
    ) -> tuple[Tensor, tersely.QParams]:
        """Return the integers of simulated values, and their scales and zero points.

        A weight of ``intk`` has the integers of ``intk`` with scale 2 / n; of ``uintk`` the odd
        integers from -n to n with scale 1 / n, which need one bit more.

        Args:
            value: the tensor, masked.
            qparams: the result of `choose`.
            target: the target.
        """
        value = value.detach()
        if target.plan.kind in ("input", "output"):
            inside = value if target.plan.kind == "input" else value.clamp(0, 1)
            levels = torch.round(inside.to(qparams.scale.dtype) / qparams.scale)
            levels = (levels + qparams.zero_point).clamp(qparams.quant_min, qparams.quant_max)
            return levels.to(torch.int32), qparams
        integers, scale = _weight_integers(_share(value, qparams), qparams)
        steps = qparams.quant_max - qparams.quant_min
        half, dtype = (steps, _wider(qparams.dtype)) if steps % 2 else (steps // 2, qparams.dtype)
        read = qparams.evolve(
            scale=scale,
            zero_point=torch.zeros_like(qparams.zero_point),
            quant_min=-half,
            quant_max=half,
            dtype=dtype,
            scheme="symmetric",
        )
        return integers.to(torch.int32), read

    def _few_bits(self, gradient: Tensor) -> Tensor:
        # Section 2.5. A new generator for each call: unlike a stored one, it needs no copying and
        # pickling.
        generator = torch.Generator(gradient.device)
        # The CPU's generator uses at most 32 bits of a seed.
        generator.manual_seed((self.seed * _SPREAD + self.drawn) % 2**32)
        self.drawn += 1
        noise = torch.rand(gradient.shape, generator=generator, device=gradient.device) - 0.5
        return quantized_gradient(gradient, noise, bits=self.gradient_bits or _LARGEST_BITS)


def quantized_gradient(gradient: Tensor, noise: Tensor, *, bits: int) -> Tensor:
    """Return a gradient quantized for each sample as in section 2.5.

    Args:
        gradient: any shape with samples in dimension 0.
        noise: the gradient's shape, in [-0.5, 0.5) steps.
        bits: the bits of a value.

    Returns:
        The gradient's shape and dtype; 0 for a sample whose gradient is 0.
    """
    steps = 2**bits - 1
    wide = gradient.float()
    dims = tuple(range(1, gradient.ndim))
    largest = (wide.abs().amax(dims, keepdim=True) if dims else wide.abs()) * 2
    share = wide / largest.clamp(min=torch.finfo(torch.float32).tiny) + 0.5
    rounded = torch.round(share * steps + noise).clamp(0, steps) / steps
    return torch.where(largest > 0, largest * (rounded - 0.5), 0).to(gradient.dtype)


def _share(weight: Tensor, qparams: tersely.QParams) -> Tensor:
    # tanh(weight), scaled to [0, 1]; all zeros are 1/2.
    squashed = torch.tanh(weight.to(qparams.scale.dtype))
    largest = squashed.abs().amax().clamp(min=torch.finfo(squashed.dtype).tiny)
    return squashed / (2 * largest) + 0.5


def _weight_integers(share: Tensor, qparams: tersely.QParams) -> tuple[Tensor, Tensor]:
    # Integers around zero, as floats, and the scale that makes them 2 * level / steps - 1.
    steps = qparams.quant_max - qparams.quant_min
    levels = torch.round(share / qparams.scale).clamp(0, steps)
    if steps % 2:
        return 2 * levels - steps, qparams.scale
    return levels - steps // 2, 2 * qparams.scale


def _check_dtype(target: tersely.QuantizationTarget) -> None:
    match = _INTEGER.match(target.dtype)
    if match is None:
        raise tersely.PlanError(
            f"{target.name}: dorefa needs equal steps, which quant_dtype {target.dtype} does not "
            "have; write an integer type such as int8",
            **target.plan.place,
        )
    if match[1] and int(match[2]) == _LARGEST_BITS and target.plan.kind != "output":
        raise tersely.PlanError(
            f"{target.name}: dorefa's {target.dtype} weights are odd integers of one bit more, "
            f"beyond the {_LARGEST_BITS} bits there are; write int16 or uint15",
            **target.plan.place,
        )


def _wider(dtype: str) -> str:
    return f"int{int(dtype.removeprefix('uint')) + 1}"
