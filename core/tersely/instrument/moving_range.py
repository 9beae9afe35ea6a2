"""Quantization-aware training as a transform: ranges and scales that follow the values."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import attrs
import torch
from torch import Tensor, nn

from tersely.arithmetic.affine import check_range
from tersely.arithmetic.ranges import block_range
from tersely.contracts.quantizer import QuantizationTarget, Quantizer, choose_of
from tersely.instrument.names import QUANTIZE, moved_flag, state_buffer
from tersely.instrument.quantizing import Quantize, need_float
from tersely.instrument.recomputation import is_recomputing


@attrs.frozen(eq=False)
class Follow:
    """Quantization-aware training: the range follows the values of training forwards (rule Q5).

    A range moves once per optimizer step, however often the module is called in it (a head that
    several levels share, a siamese network, accumulated gradients): it moves towards the range of
    all calls of the step.

    Attributes:
        quantizer: the algorithm.
        tensor: the target as the algorithm sees it.
        inner: what quantizes with the scale in force.
        decay: the share of the old range that stays.
        is_quantizing: whether values are quantized already, or only observed.
        least: the smallest scales that serve the bias beside a weight, given the module and scales;
            None where there is no such bias.
    """

    place: ClassVar[int] = QUANTIZE

    quantizer: Quantizer
    tensor: QuantizationTarget
    inner: Quantize
    decay: float
    is_quantizing: bool = True
    least: Callable[[nn.Module, Tensor], Tensor | None] | None = None

    @property
    def settled(self) -> Quantize:
        """What quantizes with the range as it is."""
        return self.inner

    def __call__(self, module: nn.Module, value: Tensor) -> Tensor:
        """Return the quantized values as floats, after the range has followed them."""
        need_float(value, self.tensor.name)
        is_moving = module.training and value.numel() and not is_recomputing()
        if is_moving:
            self._follow(module, value.detach())
        if not self.is_quantizing:
            return value
        if is_moving and self.inner.clip_gradient and torch.is_grad_enabled():
            # Backward needs the scale of this call, and the next call of the step may move it.
            return self.inner.with_own_scale(module, value)
        return self.inner(module, value)

    @torch.no_grad()
    def _follow(self, module: nn.Module, values: Tensor) -> None:
        target, cut, buffers = self.inner.target, self.inner.cut, module._buffers
        known = buffers.get(state_buffer(target, "low"))
        if known is not None and cut.fixed is None:
            self.inner.need_lengths(module, values, known)
        size = cut.size_of(values)
        found = [cut.canonical(values, end) for end in block_range(values, size)]
        low, high = self._moved(module, *_over_processes([end.float() for end in found]))
        # Chosen before anything is written: what is not finite raises and leaves no trace.
        chosen = choose_of(self.quantizer)(low, high, self.tensor)
        scale = chosen.scale.reshape(low.shape)
        least = None if self.least is None else self.least(module, scale)
        if least is not None:
            scale = torch.maximum(scale, least)
        parts = {"low": low, "high": high, "scale": scale}
        if not self.inner.grid.is_centred:
            # Adding zeros to every value, here and in backward, would be work for nothing.
            parts["zero_point"] = chosen.zero_point.reshape(low.shape)
        if cut.kind == "fixed" and cut.fixed is None:
            parts["size"] = torch.tensor(size)
        for part, tensor in parts.items():
            current = buffers.get(state_buffer(target, part))
            if current is None or current.shape != tensor.shape:
                buffers[state_buffer(target, part)] = tensor.clone()
            else:
                current.copy_(tensor)
        setattr(module, moved_flag(target), True)

    def _moved(self, module: nn.Module, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """Return the range after one more call of the step, whose values lie in [low, high]."""
        target, buffers = self.inner.target, module._buffers
        known = [buffers.get(state_buffer(target, part)) for part in ("low", "high")]
        is_first = not getattr(module, moved_flag(target), False)
        if is_first:
            for part, before in zip(_START, known, strict=True):
                _keep_start(module, state_buffer(target, part), before)
        start_low, start_high = (buffers.get(state_buffer(target, part)) for part in _START)
        share = 1 - self.decay
        low = low if start_low is None else start_low.lerp(low, share)
        high = high if start_high is None else start_high.lerp(high, share)
        if is_first or known[0] is None or known[1] is None:
            return low, high
        # Interpolation is monotone: the outermost of the moved ends is the moved outermost end.
        return torch.minimum(low, known[0]), torch.maximum(high, known[1])


_START = ("start_low", "start_high")
"""Parts that hold the range from before the step; no checkpoint holds them."""


def _keep_start(module: nn.Module, name: str, before: Tensor | None) -> None:
    current = module._buffers.get(name)
    if before is None:
        module._buffers.pop(name, None)
    elif current is None:
        module._non_persistent_buffers_set.add(name)
        module._buffers[name] = before.clone()
    else:
        current.copy_(before)


def end_step(module: nn.Module, target: str) -> None:
    """Let the next training forward move a range from where it is now.

    Args:
        module: the module.
        target: the parameter's name or the address of the input or output.
    """
    module.__dict__.pop(moved_flag(target), None)


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
