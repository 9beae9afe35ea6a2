"""The numerical check: outputs of the masked and the small model in double precision."""

from __future__ import annotations

import contextlib
import copy
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import attrs
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from tersely.instrument.modules.fused import without_nested_tensors
from tersely.shrinking.graph.program import Program, evaluating
from tersely.shrinking.proving.inputs import Inputs
from tersely.shrinking.proving.streaming import compared, stream, wider_dtype

_LARGEST_COPY = 1 << 30
"""The most bytes of a model that is copied; larger ones run operator by operator."""

Way = Literal["copy", "streamed", "as it is"]

_TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-4}
_OWN_TOLERANCE = 2e-3
_ROUNDING = 1e-12


@attrs.frozen(eq=False)
class Discrete:
    """An output of integers or booleans.

    Attributes:
        values: the tensor.
        is_steady: where it is stable if all numbers change by a rounding, that is, not at ties.
    """

    values: Tensor
    is_steady: Tensor

    def count_differences(self, other: Discrete) -> int:
        """Return the number of stable values that differ in another model's output.

        Args:
            other: the other model's output.
        """
        if self.values.shape != other.values.shape:
            return self.values.numel()
        return int(((self.values != other.values) & self.is_steady).sum())


@attrs.frozen(eq=False)
class Outputs:
    """The outputs of a model.

    Attributes:
        way: how it was run.
        dtype: the dtype of the computation; None for the model's own.
        tensors: the floating-point outputs of each call.
        others: the integer and boolean outputs of each call; only from a copy.
    """

    way: Way
    dtype: torch.dtype | None
    tensors: list[list[Tensor]]
    others: list[list[Discrete]] = attrs.field(factory=list)

    @property
    def tolerance(self) -> float:
        """The allowed difference, relative to the largest output if that is above 1."""
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
        values: parameters with other values, by their first names.
        inputs: arguments and keyword arguments of each call.
        program: returns the model's operators, with the first names of parameters.
        way: how to run it; by default the best way that works.
    """
    ways: tuple[Way, ...] = (
        (way,) if way else ("copy", "streamed") if _is_copied(model) else ("streamed",)
    )
    for one in ways:
        try:
            with _same_numbers(model):
                if one == "copy":
                    return Outputs(one, torch.float64, *outputs_in_float64(model, values, inputs))
                if one == "streamed":
                    return _streamed(model, values, inputs, program())
        except (RuntimeError, TypeError):  # an operator does not support the dtype
            if way:
                raise
    with _same_numbers(model):
        return Outputs("as it is", None, outputs_as_it_is(model, values, inputs))


@contextlib.contextmanager
def _same_numbers(model: nn.Module) -> Iterator[None]:
    """Let operators that draw random numbers in evaluation draw the same ones in every run."""
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
) -> tuple[list[list[Tensor]], list[list[Discrete]]]:
    """Run a double precision copy of a model in evaluation mode.

    Args:
        model: the model, which is not changed.
        values: parameters with other values in the copy, read one after another.
        inputs: arguments and keyword arguments of each call.

    Returns:
        The floating-point outputs of each call, and the others.
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
    results = [_results(double, {}, _doubled(one)) for one in inputs]
    first = [_discrete(result) for result in results]
    others: list[list[Discrete]] = []
    if any(first):
        for tensor in [*double.parameters(), *double.buffers()]:
            tensor.data = _moved(tensor.data)
        for one, found in zip(inputs, first, strict=True):
            moved = _discrete(_results(double, {}, tree_map(_moved, _doubled(one))))
            others.append([Discrete(a, a == b) for a, b in zip(found, moved, strict=True)])
    return [compared(result) for result in results], others


def _discrete(result: Any) -> list[Tensor]:
    leaves = [one for one in tree_leaves(result) if isinstance(one, Tensor)]
    return [one for one in leaves if not one.is_floating_point() and not one.is_complex()]


def _moved(value: Any) -> Any:
    """A tensor whose numbers all differ by a rounding, increasingly so along the tensor."""
    if not isinstance(value, Tensor) or not value.is_floating_point():
        return value
    places = torch.linspace(1, 2, value.numel(), device=value.device, dtype=value.dtype)
    return value * (1 + _ROUNDING * places.view(value.shape))


def outputs_as_it_is(
    model: nn.Module, values: Mapping[str, Tensor], inputs: Sequence[Inputs]
) -> list[list[Tensor]]:
    """Run the model itself in evaluation mode and in its own precision.

    Args:
        model: the model.
        values: parameters to use instead.
        inputs: arguments and keyword arguments of each call.
    """
    return [compared(_results(model, values, one)) for one in inputs]


def _results(model: nn.Module, values: Mapping[str, Tensor], inputs: Inputs) -> Any:
    args, kwargs = inputs
    encoders = [one for one in model.modules() if isinstance(one, nn.TransformerEncoder)]
    with evaluating(model), without_nested_tensors(encoders), torch.no_grad():
        return torch.func.functional_call(model, dict(values), tuple(args), dict(kwargs))


def _doubled(inputs: Inputs) -> Inputs:
    doubled: Inputs = tree_map(
        lambda x: x.to(torch.float64) if isinstance(x, Tensor) and x.is_floating_point() else x,
        inputs,
    )
    return doubled


def largest_difference(first: list[list[Tensor]], second: list[list[Tensor]]) -> float:
    """Return the largest difference of outputs, relative to the largest one if that is above 1.

    Args:
        first: outputs of each call.
        second: outputs of each call of the other model.

    Returns:
        Infinity if shapes or the positions of non-finite values differ.
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


def count_other_differences(first: Outputs, second: Outputs) -> int:
    """Return the number of stable integers and booleans that differ.

    Args:
        first: the masked model's outputs.
        second: the small model's outputs.
    """
    return sum(
        ours.count_differences(theirs)
        for call, other in zip(first.others, second.others, strict=True)
        for ours, theirs in zip(call, other, strict=True)
    )


def describe_difference(error: float, tolerance: float, others: int) -> str:
    """Return the text of a difference between outputs.

    Args:
        error: the difference of floating-point outputs.
        tolerance: the allowed difference.
        others: the number of integers and booleans that differ.
    """
    integers = f" and in {others} integers or booleans" if others else ""
    return (
        f"the small model's outputs differ from the masked model's by {error:.3g} (at most "
        f"{tolerance:g} was expected){integers}, so nothing was removed; please report the "
        "structure of this model"
    )


def _is_copied(model: nn.Module) -> bool:
    """Tell whether a copy in double precision is small and fits into half of the free memory."""
    needed = 8 * sum(parameter.numel() for parameter in model.parameters())
    devices = {p.device for p in model.parameters()}
    if any(device.type == "cuda" for device in devices):
        free = min(torch.cuda.mem_get_info(d)[0] for d in devices if d.type == "cuda")
    else:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return needed < min(_LARGEST_COPY, free // 2)
