"""The check by numbers: outputs of the masked and of the small model, in double precision."""

from __future__ import annotations

import contextlib
import copy
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import attrs
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from tersely.instrument.modules.fused import without_nested_tensors
from tersely.shrinking.graph.program import Program, evaluating
from tersely.shrinking.proving.streaming import compared, stream, wider_dtype

_LARGEST_COPY = 1 << 30
"""Bytes up to which a model is copied: what is larger runs operator by operator instead."""

Inputs = tuple[Sequence[Any], Mapping[str, Any]]


Way = Literal["copy", "streamed", "as it is"]

_TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-4}
_OWN_TOLERANCE = 2e-3


@attrs.frozen(eq=False)
class Outputs:
    """What a model returns.

    Attributes:
        way: how it was run.
        dtype: what it was computed in; None for the model's own.
        tensors: the floating-point tensors that each call returned.
    """

    way: Way
    dtype: torch.dtype | None
    tensors: list[list[Tensor]]

    @property
    def tolerance(self) -> float:
        """How much outputs may differ, relative to the largest one where that is above 1."""
        return _OWN_TOLERANCE if self.dtype is None else _TOLERANCES[self.dtype]


def outputs_of(
    model: nn.Module,
    values: Mapping[str, Tensor],
    inputs: Sequence[Inputs],
    program: Callable[[], Program],
    *,
    way: Way | None = None,
) -> Outputs:
    """Run a model in the widest dtype that memory allows.

    Args:
        model: the model.
        values: parameters that differ, under the first of their names.
        inputs: arguments and keyword arguments of each call.
        program: returns the model's operators, with parameters under the first of their names.
        way: how to run it; the best that works if it is left out.
    """
    ways: tuple[Way, ...] = (
        (way,) if way else ("copy", "streamed") if _is_copied(model) else ("streamed",)
    )
    for one in ways:
        try:
            with _same_numbers(model):
                if one == "copy":
                    return Outputs(one, torch.float64, outputs_in_float64(model, values, inputs))
                if one == "streamed":
                    return _streamed(model, values, inputs, program())
        except (RuntimeError, TypeError):  # an operator without that dtype
            if way:
                raise
    with _same_numbers(model):
        return Outputs("as it is", None, outputs_as_it_is(model, values, inputs))


@contextlib.contextmanager
def _same_numbers(model: nn.Module) -> Iterator[None]:
    """Let what draws random numbers in evaluation draw the same ones in every run."""
    devices = {p.device for p in model.parameters() if p.device.type == "cuda"}
    with torch.random.fork_rng(devices=list(devices)):
        torch.random.manual_seed(0)
        yield


def _streamed(
    model: nn.Module, values: Mapping[str, Tensor], inputs: Sequence[Inputs], program: Program
) -> Outputs:
    tensors = {
        **dict(model.named_parameters(remove_duplicate=False)),
        **dict(model.named_buffers(remove_duplicate=False)),
    }
    dtype = wider_dtype(tensors)

    def read(name: str) -> Tensor:
        return values[name] if name in values else tensors[name]

    return Outputs("streamed", dtype, [stream(program, read, one, dtype) for one in inputs])


def outputs_in_float64(
    model: nn.Module, values: Mapping[str, Tensor], inputs: Sequence[Inputs]
) -> list[list[Tensor]]:
    """Run a double precision copy of a model in evaluation mode.

    Args:
        model: the model, which stays as it is.
        values: parameters that differ in the copy, taken one after the other.
        inputs: arguments and keyword arguments of each call.

    Returns:
        The floating-point tensors that each call returned.
    """
    made: dict[int, Any] = {}
    parameters = list(model.named_parameters(remove_duplicate=False))
    for name, tensor in [*parameters, *model.named_buffers(remove_duplicate=False)]:
        if not tensor.is_floating_point() or (id(tensor) in made and name not in values):
            continue
        value = (values[name] if name in values else tensor.detach()).to(torch.float64)
        is_parameter = isinstance(tensor, nn.Parameter)
        made[id(tensor)] = nn.Parameter(value, requires_grad=False) if is_parameter else value
    double = copy.deepcopy(model, made)
    return [_outputs(double, {}, _doubled(one)) for one in inputs]


def outputs_as_it_is(
    model: nn.Module, values: Mapping[str, Tensor], inputs: Sequence[Inputs]
) -> list[list[Tensor]]:
    """Run the model itself in evaluation mode, in its own precision.

    Args:
        model: the model.
        values: parameters to use instead.
        inputs: arguments and keyword arguments of each call.
    """
    return [_outputs(model, values, one) for one in inputs]


def _outputs(model: nn.Module, values: Mapping[str, Tensor], inputs: Inputs) -> list[Tensor]:
    args, kwargs = inputs
    encoders = [one for one in model.modules() if isinstance(one, nn.TransformerEncoder)]
    with evaluating(model), without_nested_tensors(encoders), torch.no_grad():
        result = torch.func.functional_call(model, dict(values), tuple(args), dict(kwargs))
    return compared(result)


def _doubled(inputs: Inputs) -> Inputs:
    doubled: Inputs = tree_map(
        lambda x: x.to(torch.float64) if isinstance(x, Tensor) and x.is_floating_point() else x,
        inputs,
    )
    return doubled


def random_inputs(inputs: Inputs, *, seed: int) -> Inputs:
    """Return inputs like the example's with other floating-point values; integers stay.

    Args:
        inputs: arguments and keyword arguments.
        seed: of the generator.
    """
    generator = torch.Generator().manual_seed(seed)

    def other(x: Any) -> Any:
        if not isinstance(x, Tensor) or not x.is_floating_point():
            return x
        return torch.randn(x.shape, generator=generator).to(x.dtype).to(x.device)

    changed: Inputs = tree_map(other, inputs)
    return changed


def largest_difference(first: list[list[Tensor]], second: list[list[Tensor]]) -> float:
    """Return the largest difference between outputs, relative to their size where that is above 1.

    Args:
        first: outputs of each call.
        second: outputs of each call of the other model.

    Returns:
        Infinity when shapes, or places of values that are not finite, differ.
    """
    worst = 0.0
    for ours, theirs in zip(first, second, strict=True):
        if [x.shape for x in ours] != [x.shape for x in theirs]:
            return float("inf")
        for a, b in zip(ours, theirs, strict=True):
            finite = a.isfinite()
            if not torch.equal(finite, b.isfinite()):
                return float("inf")
            if bool(finite.any()):
                size = max(1.0, float(a[finite].abs().max()))
                difference = (a[finite].double() - b[finite].double()).abs().max()
                worst = max(worst, float(difference) / size)
    return worst


def _is_copied(model: nn.Module) -> bool:
    """Tell whether a double precision copy is small, and fits into half of the free memory."""
    needed = 8 * sum(parameter.numel() for parameter in model.parameters())
    devices = {p.device for p in model.parameters()}
    if any(device.type == "cuda" for device in devices):
        free = min(torch.cuda.mem_get_info(d)[0] for d in devices if d.type == "cuda")
    else:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return needed < min(_LARGEST_COPY, free // 2)
