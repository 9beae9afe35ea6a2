"""Quantization-aware training as a transform: ranges and scales that follow the values."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import attrs
import torch
from torch import Tensor, nn

from tersely.arithmetic.level_tables import levels_problem, padded
from tersely.arithmetic.ranges import are_finite, block_range, data_range
from tersely.arithmetic.scales import check_range
from tersely.contracts.quantizer import QuantizationTarget, Quantizer, choose_of
from tersely.errors import PluginError, SessionError
from tersely.instrument.modules.recomputation import is_recomputing
from tersely.instrument.names import QUANTIZE, moved_flag, state_buffer, strange_flag
from tersely.instrument.scales.padded import PaddingOfCall
from tersely.instrument.scales.quantizing import Quantize, need_float
from tersely.instrument.scales.shared_inputs import Extent, is_shareable
from tersely.instrument.scales.target_scales import START, are_known, put_in_force


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
        least: the smallest scales that suit the bias of a weight, given the module and scales;
            None where there is no such bias.
        padding: which positions of the running call are data, for inputs and outputs, or None.
        is_channels_first: whether the module has its channels in dimension 1.
    """

    place: ClassVar[int] = QUANTIZE

    quantizer: Quantizer
    tensor: QuantizationTarget
    inner: Quantize
    decay: float
    is_quantizing: bool = True
    least: Callable[[nn.Module, Tensor], Tensor | None] | None = None
    padding: PaddingOfCall | None = None
    is_channels_first: bool = False

    @property
    def settled(self) -> Quantize:
        """What quantizes with the range as it is."""
        return self.inner

    def __call__(self, module: nn.Module, value: Tensor) -> Tensor:
        """Return the quantized values as floats, after the range has followed them."""
        need_float(value, self.tensor.name)
        is_moving = module.training and value.numel() and not is_recomputing()
        if is_moving:
            self._follow(module, value)
        if not self.is_quantizing:
            return value
        # Backward needs the scale of this call, and the next call of the step may move it.
        has_own_scale = bool(is_moving) and self.inner.clip_gradient and torch.is_grad_enabled()
        if has_own_scale:
            return self.inner.with_own_scale(module, value)
        return self.inner(module, value)

    def _need_no_transform(self) -> None:
        if not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active():
            raise SessionError(
                f"{self.tensor.name}: the range of training cannot follow values inside a "
                "transform of torch.func; call model.eval() before it, in which ranges stay",
                target=self.tensor.name,
            )

    @torch.no_grad()
    def _follow(self, module: nn.Module, value: Tensor) -> None:
        self._need_no_transform()
        values = value.detach()
        target, cut, buffers = self.inner.target, self.inner.cut, module._buffers
        has_range = are_known(module, target)
        known = self._range(module) if has_range else None
        if known is not None and cut.fixed is None:
            self.inner.need_lengths(module, values, known[0])
        size = cut.size_of(values)
        ends = self._finite(module, self._extent_of(module, value), known)
        if ends is None:
            return
        low, high = self._moved(module, ends[0], ends[1], known)
        # Chosen before anything is written: what is not finite raises and leaves no trace.
        chosen = choose_of(self.quantizer)(low, high, self.tensor)
        scale = chosen.scale.reshape(low.shape)
        least = None if self.least is None else self.least(module, scale)
        if least is not None:
            scale = torch.maximum(scale, least)
        parts = {"low": low, "high": high, "scale": scale}
        if self.inner.grid.has_zero_point:
            # Adding zeros to every value, here and in backward, would be work for nothing.
            parts["zero_point"] = chosen.zero_point.reshape(low.shape).to(low.dtype)
        if chosen.levels is not None:
            parts["levels"] = self._table(chosen.levels, is_new=not has_range)
        elif self.inner.grid.has_levels:
            buffers.pop(state_buffer(target, "levels"), None)
        if cut.kind == "fixed" and cut.fixed is None:
            parts["size"] = torch.tensor(size)
        for part, tensor in parts.items():
            current = buffers.get(state_buffer(target, part))
            if current is None or current.shape != tensor.shape:
                buffers[state_buffer(target, part)] = tensor.clone()
            else:
                current.copy_(tensor)
        if not has_range:
            put_in_force(module, target)

    def _table(self, levels: Tensor, *, is_new: bool) -> Tensor:
        """Return a table of levels as its buffer has it, the first one once it is known to fit."""
        grid = self.inner.grid
        if is_new and not torch.compiler.is_compiling():
            problem = "it does not declare UsesLevels"
            if grid.has_levels:
                problem = levels_problem(levels, grid.quant_min, grid.quant_max) or ""
            if problem:
                raise PluginError(
                    f"{self.tensor.plan.algorithm} returned levels for {self.tensor.name} that "
                    f"cannot be used: {problem}",
                    plugin=self.tensor.plan.algorithm,
                    target=self.tensor.plan.name,
                )
        return padded(levels, grid.quant_max + 1)

    def _range(self, module: nn.Module) -> tuple[Tensor, Tensor] | None:
        low, high = (
            module._buffers.get(state_buffer(self.inner.target, part)) for part in ("low", "high")
        )
        return None if low is None or high is None else (low, high)

    def _extent_of(self, module: nn.Module, value: Tensor) -> Extent:
        """Return the range of a value, computed unless the last input was this tensor."""
        shared, padding = self.inner.shared, self.padding
        if shared is None or not is_shareable(value):
            return self._found_extent(value.detach())
        is_data = None if padding is None else padding.is_data
        channels_first = self.is_channels_first
        found = shared.extent(module, value, is_data, is_channels_first=channels_first)
        if found is None:
            found = self._found_extent(value.detach())
            shared.keep_extent(module, value, is_data, found, is_channels_first=channels_first)
        return found

    def _found_extent(self, values: Tensor) -> Extent:
        """Return the range of what is data and finite (rule Q5.4), over all processes."""
        cut = self.inner.cut
        is_compiling = torch.compiler.is_compiling()
        data = None
        if self.padding is not None:
            data = self.padding.positions(values, is_channels_first=self.is_channels_first)
        is_strange = False
        if data is None or not is_compiling:
            size = cut.size_of(values)
            found = block_range(values, size) if data is None else data_range(values, data, size)
            ends = [cut.canonical(values, end).float() for end in found]
            if not is_compiling and are_finite(*ends):
                low, high = _over_processes(ends)
                return Extent(low, high, is_strange=False, is_finite=True)
            is_strange = not is_compiling and data is None
        if data is not None:
            is_strange = not is_compiling and not bool((values.isfinite() | ~data).all())
            values = torch.where(data, values, torch.nan)
        if is_strange or data is not None:
            ends = [self._end(values, sign) for sign in (1, -1)]
        is_finite = ends[0].isfinite() & ends[1].isfinite()
        # The smallest of all processes leaves these out.
        low = torch.where(is_finite, ends[0], torch.inf)
        high = torch.where(is_finite, ends[1], -torch.inf)
        low, high = _over_processes([low, high])
        return Extent(low, high, is_strange=is_strange, is_padded=data is not None)

    def _finite(
        self, module: nn.Module, extent: Extent, known: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, Tensor] | None:
        """Return a range without what is not finite; a loss scaler skips such a step.

        Args:
            module: the module, which is marked where values are not finite.
            extent: what was found of this call's values.
            known: the range so far, or None.

        Returns:
            Low and high, or None where nothing is finite and nothing is known.
        """
        low, high = extent.low, extent.high
        if extent.is_strange:
            setattr(module, strange_flag(self.inner.target), True)
        if extent.is_finite:
            return low, high
        is_finite = low.isfinite() & high.isfinite()
        if known is not None:
            return torch.where(is_finite, low, known[0]), torch.where(is_finite, high, known[1])
        if extent.is_padded and not extent.is_strange:
            # Blocks that contain only padding: their range is that of zeros until they hold data.
            return torch.where(is_finite, low, 0.0), torch.where(is_finite, high, 0.0)
        return (low, high) if torch.compiler.is_compiling() or bool(is_finite.all()) else None

    def _end(self, values: Tensor, sign: int) -> Tensor:
        """Return the smallest (sign 1) or largest (-1) finite value of each block, or infinity."""
        cut = self.inner.cut
        finite = torch.where(values.isfinite(), values, sign * torch.inf)
        low, high = block_range(finite, cut.size_of(values))
        return cut.canonical(values, low if sign == 1 else high).float()

    def _moved(
        self, module: nn.Module, low: Tensor, high: Tensor, known: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, Tensor]:
        """Return the range after one more call in this step, whose values are in [low, high]."""
        flag = moved_flag(self.inner.target)
        names = [state_buffer(self.inner.target, part) for part in START]
        # Whether there was a range before the step, once a call of the step has moved it.
        had_range: bool | None = getattr(module, flag, None)
        is_first = had_range is None
        if is_first:
            had_range = known is not None
            for name, before in zip(names, known or (), strict=False):
                _keep_start(module, name, before)
            setattr(module, flag, had_range)
        if had_range:
            starts = (module._buffers[name] for name in names)
            share = 1 - self.decay
            low, high = (
                end if start is None else start.lerp(end, share)
                for start, end in zip(starts, (low, high), strict=True)
            )
        if is_first or known is None:
            return low, high
        # Interpolation is monotone: the outermost of the moved ends is the moved outermost end.
        return torch.minimum(low, known[0]), torch.maximum(high, known[1])


def _keep_start(module: nn.Module, name: str, before: Tensor) -> None:
    current = module._buffers.get(name)
    if current is None or current.shape != before.shape:
        module._non_persistent_buffers_set.add(name)
        module._buffers[name] = before.clone()
    else:
        current.copy_(before)


def pop_strange(module: nn.Module, target: str) -> bool:
    """Tell once whether a training forward had values of a target that are not finite.

    Args:
        module: the module.
        target: the parameter's name or the address of the input or output.
    """
    found: bool = module.__dict__.pop(strange_flag(target), False)
    return found


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
