"""Quantization-aware training as a transform: ranges and scales that follow the values."""

from __future__ import annotations

from typing import ClassVar

import attrs
import torch
from torch import Tensor, nn

from tersely.arithmetic.affine import check_range
from tersely.arithmetic.ranges import block_range
from tersely.contracts.quantizer import QuantizationTarget, Quantizer
from tersely.instrument.names import QUANTIZE, state_buffer
from tersely.instrument.quantizing import Quantize
from tersely.instrument.recomputation import is_recomputing


@attrs.frozen(eq=False)
class Follow:
    """Quantization-aware training: the range follows the values of training forwards (rule Q5).

    Attributes:
        quantizer: the algorithm.
        tensor: the target as the algorithm sees it.
        inner: what quantizes with the scale in force.
        decay: the share of the old range that stays.
        is_quantizing: whether values are quantized already, or only observed.
    """

    place: ClassVar[int] = QUANTIZE

    quantizer: Quantizer
    tensor: QuantizationTarget
    inner: Quantize
    decay: float
    is_quantizing: bool = True

    @property
    def settled(self) -> Quantize:
        """What quantizes with the range as it is."""
        return self.inner

    def __call__(self, module: nn.Module, value: Tensor) -> Tensor:
        """Return the quantized values as floats, after the range has followed them."""
        if module.training and value.numel() and not is_recomputing():
            self._follow(module, value.detach())
        return self.inner(module, value) if self.is_quantizing else value

    @torch.no_grad()
    def _follow(self, module: nn.Module, values: Tensor) -> None:
        target, cut, buffers = self.inner.target, self.inner.cut, module._buffers
        size = cut.size_of(values)
        found = [cut.canonical(values, end) for end in block_range(values, size)]
        low, high = (
            end if before is None else before.lerp(end, 1 - self.decay)
            for before, end in zip(
                (buffers.get(state_buffer(target, part)) for part in ("low", "high")),
                _over_processes([end.float() for end in found]),
                strict=True,
            )
        )
        # Chosen before anything is written: what is not finite raises and leaves no trace.
        chosen = self.quantizer.choose(low, high, self.tensor)
        parts = {"low": low, "high": high, "scale": chosen.scale.reshape(low.shape)}
        if not self.inner.grid.is_centred:
            # Adding zeros to every value, here and in backward, would be work for nothing.
            parts["zero_point"] = chosen.zero_point.reshape(low.shape)
        if cut.kind == "fixed" and cut.fixed is None:
            parts["size"] = torch.tensor(size)
        for part, tensor in parts.items():
            current = buffers.get(state_buffer(target, part))
            if current is None:
                buffers[state_buffer(target, part)] = tensor.clone()
            else:
                current.copy_(tensor)


def check_followed(module: nn.Module, target: str, name: str) -> None:
    """Refuse a range that training made unusable; compiled forwards do not look.

    Args:
        module: the module.
        target: the parameter's name or the address of the input or output.
        name: the target's full name.

    Raises:
        CalibrationError: the range is not finite.
    """
    low = module._buffers.get(state_buffer(target, "low"))
    high = module._buffers.get(state_buffer(target, "high"))
    if low is not None and high is not None:
        check_range(low, high, name)


def _over_processes(ends: list[Tensor]) -> list[Tensor]:
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()):
        return ends
    # One message: the largest value is minus the smallest of the negated ones.
    both = torch.stack([ends[0], -ends[1]])
    distributed.all_reduce(both, op=distributed.ReduceOp.MIN)
    return [both[0], -both[1]]
