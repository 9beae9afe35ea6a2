"""Rounding at random in training forwards, with a sequence of random numbers that is saved."""

from __future__ import annotations

import zlib

import attrs
import torch
from torch import Tensor, nn

from tersely.contracts.quantized_forward import RoundsAtRandom
from tersely.contracts.quantizer import QuantizationTarget
from tersely.errors import PluginError
from tersely.instrument.modules.recomputation import is_recomputing
from tersely.instrument.names import state_buffer
from tersely.instrument.scales.quantizing import Quantize, where_in_force
from tersely.instrument.scales.target_scales import scales_of

_LARGEST_SEED = 2**63
_CALLS = 2**24
"""More calls of one target than a training has, before seeds of its neighbours come again."""


@attrs.frozen(eq=False)
class RoundAtRandom(Quantize):
    """Quantizes as its algorithm rounds while the module trains, and to nearest otherwise.

    Attributes:
        algorithm: the algorithm.
        tensor: the target as the algorithm sees it.
        inner: what quantizes to nearest.
        first_seed: what the random numbers of this target start from.
    """

    algorithm: RoundsAtRandom = attrs.field(kw_only=True)
    tensor: QuantizationTarget = attrs.field(kw_only=True)
    inner: Quantize = attrs.field(kw_only=True)
    first_seed: int = attrs.field(kw_only=True)

    @classmethod
    def of(
        cls, inner: Quantize, algorithm: RoundsAtRandom, tensor: QuantizationTarget
    ) -> RoundAtRandom:
        """Return what rounds a target at random.

        Args:
            inner: what quantizes it to nearest.
            algorithm: the algorithm.
            tensor: the target as the algorithm sees it.
        """
        return cls(
            inner.target,
            inner.grid,
            inner.cut,
            inner.clip_gradient,
            algorithm=algorithm,
            tensor=tensor,
            inner=inner,
            first_seed=algorithm.seed * 1_000_003 + zlib.crc32(tensor.name.encode()),
        )

    def __call__(self, module: nn.Module, value: Tensor) -> Tensor:
        """Return the quantized values as floats, or the tensor itself while there is no scale."""
        found = scales_of(module, self.target)
        if found is None or not (module.training and torch.is_grad_enabled()):
            return self.inner(module, value)
        scale, zero_point, share = found
        return where_in_force(share, self._rounded(module, value, scale, zero_point), value)

    def with_own_scale(self, module: nn.Module, value: Tensor) -> Tensor:
        """Quantize with a copy of the scale in force, which nothing changes before backward."""
        found = scales_of(module, self.target)
        if found is None or not (module.training and torch.is_grad_enabled()):
            return self.inner.with_own_scale(module, value)
        scale, zero_point, share = found
        zero_point = None if zero_point is None else zero_point.clone()
        rounded = self._rounded(module, value, scale.clone(), zero_point)
        return where_in_force(share, rounded, value)

    def _rounded(
        self, module: nn.Module, value: Tensor, scale: Tensor, zero_point: Tensor | None
    ) -> Tensor:
        qparams = self.fit(module, self.kept(module, scale, zero_point), value)
        rounded = self.algorithm.rounded(value, qparams, self.tensor, self._numbers(module, value))
        if rounded.shape != value.shape or rounded.dtype != value.dtype:
            name = self.tensor.plan.algorithm
            raise PluginError(
                f"{name} returned {rounded.dtype} of shape {list(rounded.shape)} in rounded() for "
                f"{self.tensor.name}; expected {value.dtype} of shape {list(value.shape)}",
                plugin=name,
                target=self.tensor.plan.name,
            )
        return rounded

    def _numbers(self, module: nn.Module, value: Tensor) -> torch.Generator:
        name = state_buffer(self.target, "calls")
        calls = module._buffers.get(name)
        if calls is None:
            calls = torch.zeros((), dtype=torch.int64, device=value.device)
            module._buffers[name] = calls
        if not is_recomputing():
            calls.add_(1)
        generator = torch.Generator(device=value.device)
        return generator.manual_seed((self.first_seed * _CALLS + int(calls)) % _LARGEST_SEED)
