"""Trials: whether a module's output channels can grow while what reads them shrinks.

Channels are doubled in a module that may make the input of some weights, and halved again in these
weights. Powers of two commute with every rounding, so where nothing else reads the channels, every
other module computes the same, bit for bit, whatever lies between: activations that keep factors,
products with a gate, the sums of attention. No graph is needed, and none can be read wrongly.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import attrs
import torch
from torch import Tensor, nn

from tersely.calibration.observing import evaluating
from tersely.engine.batches import Batches, run_batch
from tersely.engine.binding import BoundTarget
from tersely.instrument.scales.input_scales import along_inputs
from tersely.quantization.output_forms import OutputForm, along_dim
from tersely.quantization.ranges import RangeObservers
from tersely.quantization.scale_buffers import read_buffer

Print: TypeAlias = tuple[object, ...]
"""Shape, dtype and a digest of all bits of a tensor: equal where the tensors are."""

NOT_ALONE = "no module makes their input alone"
"""The reason that says least: a candidate was not even near."""


@attrs.frozen(eq=False)
class Candidate:
    """A module that may take the factors of some weights.

    Attributes:
        targets: weights that read one and the same input.
        module: may have made that input.
        form: how its output channels are multiplied.
    """

    targets: tuple[BoundTarget, ...]
    module: nn.Module
    form: OutputForm


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


@attrs.frozen(eq=False)
class Trials:
    """Tries candidates on the first batch of calibration, with nothing quantized.

    Attributes:
        model: the session's model; its parameters are changed and put back.
        batches: the batches of calibration.
        readers: module of a weight with factors -> the weight.
        bound_targets: all quantization targets.
    """

    model: nn.Module
    batches: Batches
    readers: Mapping[nn.Module, BoundTarget]
    bound_targets: Sequence[BoundTarget]

    def reference(self) -> Record:
        """Return what modules compute as they are."""
        record = Record()
        modules = [module for bound in self.bound_targets for module, _ in bound.owners]
        kept = self.batches
        with (
            RangeObservers((), modules, {}).listening(),
            evaluating(self.model),
            self._recording(record),
        ):
            run_batch(self.model, kept.batches[0], forward=kept.forward, mask=kept.mask)
        return record

    def problem(self, candidates: Sequence[Candidate], reference: Record) -> str | None:
        """Return why some candidates cannot take factors, all together, or None.

        Args:
            candidates: of different modules and weights.
            reference: what modules compute as they are.
        """
        with _put_back(candidates):
            rounded = [one for one in candidates if one.form.make_exact(one.module)]
            if rounded:
                reference = self.reference()
            for one in candidates:
                channels = doubling(_channels(one.targets[0]))
                one.form.multiply(one.module, channels)
                for bound in one.targets:
                    raw = bound.raw
                    with torch.no_grad():
                        raw.div_(along_inputs(channels.to(raw), raw, bound.plan.input_dim))
            found = self.reference()
        return self._difference(candidates, found, reference)

    def _difference(
        self, candidates: Sequence[Candidate], found: Record, reference: Record
    ) -> str | None:
        scaled = {bound.module for one in candidates for bound in one.targets}
        for module in scaled:
            inputs = found.inputs.get(module)
            if inputs is None or inputs != reference.doubled.get(module):
                return NOT_ALONE
            if inputs == reference.inputs[module]:
                return "their input was zero in the first batch of calibration"
        makers = {one.module for one in candidates}
        for key, outputs in reference.outputs.items():
            if key not in makers and found.outputs.get(key) != outputs:
                return "something else reads their input as well"
        for (module, side), values in reference.quantized.items():
            if side == "input" and module in scaled:
                continue
            if found.quantized.get((module, side)) != values:
                return f"an {side} between them and what makes their input is quantized"
        return None

    @contextlib.contextmanager
    def _recording(self, record: Record) -> Iterator[None]:
        sides = {
            (bound.module, bound.plan.kind) for bound in self.bound_targets if bound.is_activation
        }
        hooks = [self.model.register_forward_hook(_outputs_into(record, None))]
        try:
            for module in self.model.modules():
                if any(one is not None for one in module._parameters.values()):
                    hooks.append(module.register_forward_hook(_outputs_into(record, module)))
                if module in self.readers or (module, "input") in sides:
                    reader = self.readers.get(module)
                    enter = _inputs_into(record, reader, (module, "input") in sides)
                    hooks.append(module.register_forward_pre_hook(enter, with_kwargs=True))
                if (module, "output") in sides:
                    hooks.append(module.register_forward_hook(_quantized_into(record)))
            yield
        finally:
            for hook in hooks:
                hook.remove()


def doubling(channels: int) -> Tensor:
    """Return the factors of a trial: 2 for about half of the channels, 1 for the others.

    Args:
        channels: how many there are; at least one is doubled.
    """
    generator = torch.Generator().manual_seed(channels)
    found = torch.randint(1, 3, (channels,), generator=generator).float()
    found[0] = 2
    return found


def print_of(tensor: Tensor) -> Print:
    """Return a fingerprint that tells a tensor from others that differ in any bit.

    Args:
        tensor: any shape and dtype.
    """
    values = tensor.detach().resolve_conj().resolve_neg().cpu().contiguous().view(-1)
    bits = (
        values.view(torch.uint8).numpy().data
    )  # of any dtype, also those that NumPy does not have
    return (tuple(tensor.shape), tensor.dtype, hashlib.sha1(bits, usedforsecurity=False).digest())


@contextlib.contextmanager
def _put_back(candidates: Sequence[Candidate]) -> Iterator[None]:
    tensors = {
        id(tensor): tensor
        for one in candidates
        for tensor in (
            *(one.module._parameters.get(name) for name in ("weight", "bias")),
            *(bound.raw for bound in one.targets),
        )
        if tensor is not None
    }
    before = [(tensor, tensor.detach().clone()) for tensor in tensors.values()]
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, values in before:
                tensor.copy_(values)


def _channels(bound: BoundTarget) -> int:
    factors = read_buffer(bound, "input_scale")
    assert factors is not None  # only weights with factors are tried
    return factors.numel()


def _outputs_into(record: Record, key: nn.Module | None) -> Callable[..., None]:
    def see(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if key is not None:
            record.order.append(key)
        record.outputs.setdefault(key, []).extend(map(print_of, _tensors(output)))

    return see


def _inputs_into(
    record: Record, reader: BoundTarget | None, is_quantized: bool
) -> Callable[..., None]:
    def see(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        values = list(_tensors([*args, *kwargs.values()]))
        if is_quantized:
            record.quantized.setdefault((module, "input"), []).extend(map(print_of, values))
        if reader is None or not values:
            return
        value, dim, factors = values[0], reader.plan.channel_dim, doubling(_channels(reader))
        if -value.ndim <= dim < value.ndim and value.shape[dim] == len(factors):
            factors = along_dim(factors.to(value), dim % value.ndim, value.ndim)
            record.inputs.setdefault(module, []).append(print_of(value))
            record.doubled.setdefault(module, []).append(print_of(value * factors))

    return see


def _quantized_into(record: Record) -> Callable[..., None]:
    def see(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        found = map(print_of, _tensors(output))
        record.quantized.setdefault((module, "output"), []).extend(found)

    return see


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _tensors(one)
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from _tensors(one)
