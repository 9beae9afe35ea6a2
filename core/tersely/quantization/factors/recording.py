"""What modules compute in one pass of a model, to compare with another pass bit for bit."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import attrs
import torch
from torch import Tensor, nn

from tersely.engine.targets.binding import BoundTarget
from tersely.quantization.factors.output_forms import along_dim

Print: TypeAlias = tuple[object, ...]
"""Shape, dtype and a digest of all bits of a tensor: equal where the tensors are."""


@attrs.frozen
class Record:
    """What modules computed in one pass.

    Attributes:
        order: modules with parameters of their own, in the order of their calls.
        outputs: what those computed; the whole model's own result under None.
        inputs: the inputs of weights that have factors.
        doubled: the same with the channels doubled that a trial doubles.
        quantized: values that are quantized, by module and side.
    """

    order: list[nn.Module] = attrs.field(factory=list)
    outputs: dict[nn.Module | None, list[Print]] = attrs.field(factory=dict)
    inputs: dict[nn.Module, list[Print]] = attrs.field(factory=dict)
    doubled: dict[nn.Module, list[Print]] = attrs.field(factory=dict)
    quantized: dict[tuple[nn.Module, str], list[Print]] = attrs.field(factory=dict)


@contextlib.contextmanager
def recording(
    model: nn.Module,
    readers: Mapping[nn.Module, BoundTarget],
    bound_targets: Sequence[BoundTarget],
    channels: Mapping[nn.Module, Tensor],
    *,
    into: Record,
) -> Iterator[None]:
    """Record what a model computes inside the block.

    Args:
        model: the model.
        readers: module of a weight with factors -> the weight.
        bound_targets: all quantization targets.
        channels: module of a weight with factors -> what to multiply its input channels by in
            what is recorded as doubled.
        into: what is recorded.
    """
    sides = {(bound.module, bound.plan.kind) for bound in bound_targets if bound.is_activation}
    hooks = [model.register_forward_hook(_outputs_into(into, None))]
    try:
        for module in model.modules():
            if any(one is not None for one in module._parameters.values()):
                hooks.append(module.register_forward_hook(_outputs_into(into, module)))
            if module in readers or (module, "input") in sides:
                reader = readers.get(module)
                is_quantized = (module, "input") in sides
                enter = _inputs_into(into, reader, channels.get(module), is_quantized)
                hooks.append(module.register_forward_pre_hook(enter, with_kwargs=True))
            if (module, "output") in sides:
                hooks.append(module.register_forward_hook(_quantized_into(into)))
        yield
    finally:
        for hook in hooks:
            hook.remove()


def print_of(tensor: Tensor) -> Print:
    """Return a fingerprint that tells a tensor from others that differ in any bit.

    Args:
        tensor: any shape and dtype.
    """
    values = tensor.detach().resolve_conj().resolve_neg().cpu().contiguous().view(-1)
    bits = values.view(torch.uint8).numpy().data  # NumPy does not have every dtype
    return (tuple(tensor.shape), tensor.dtype, hashlib.sha1(bits, usedforsecurity=False).digest())


def _outputs_into(record: Record, key: nn.Module | None) -> Callable[..., None]:
    def see(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if key is not None:
            record.order.append(key)
        record.outputs.setdefault(key, []).extend(map(print_of, tensors_in(output)))

    return see


def _inputs_into(
    record: Record, reader: BoundTarget | None, channels: Tensor | None, is_quantized: bool
) -> Callable[..., None]:
    def see(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        values = list(tensors_in([*args, *kwargs.values()]))
        if is_quantized:
            record.quantized.setdefault((module, "input"), []).extend(map(print_of, values))
        if reader is None or channels is None or not values:
            return
        value, dim, factors = values[0], reader.plan.channel_dim, channels
        if -value.ndim <= dim < value.ndim and value.shape[dim] == len(factors):
            factors = along_dim(factors.to(value), dim % value.ndim, value.ndim)
            record.inputs.setdefault(module, []).append(print_of(value))
            record.doubled.setdefault(module, []).append(print_of(value * factors))

    return see


def _quantized_into(record: Record) -> Callable[..., None]:
    def see(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        found = map(print_of, tensors_in(output))
        record.quantized.setdefault((module, "output"), []).extend(found)

    return see


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Return the tensors of a value, in their order.

    Args:
        value: a tensor, or tuples, lists and mappings of values.
    """
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from tensors_in(one)
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from tensors_in(one)
