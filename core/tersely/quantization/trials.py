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

Print: TypeAlias = tuple[object, ...]
"""Shape, dtype and a digest of all bits of a tensor: equal where the tensors are."""

_ZERO = "their input was zero in the first batch of calibration"
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

    @property
    def channels(self) -> Tensor:
        """The factors of a trial, as the form allows them."""
        count, rows = channels_of(self.targets[0]), self.form.rows
        found = doubling(count) if rows is None else rows.repeated(doubling(count // rows.repeats))
        return found.expand(len(self.targets[0].raw), -1) if self.is_of_experts else found

    @property
    def is_of_experts(self) -> bool:
        """Whether the module is that of the weights, which are those of several experts."""
        return self.form.is_of_experts


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

    def reference(self, candidates: Sequence[Candidate] = ()) -> Record:
        """Return what modules compute as they are.

        Args:
            candidates: whose channels to double in what is recorded as doubled, where they are
                not those that are doubled if every output channel is an input channel.
        """
        channels = {module: doubling(channels_of(one)) for module, one in self.readers.items()}
        for one in candidates:
            channels.update((bound.module, one.channels) for bound in one.targets)
        record = Record()
        modules = [module for bound in self.bound_targets for module, _ in bound.owners]
        kept = self.batches
        with (
            RangeObservers((), modules, {}).listening(),
            evaluating(self.model),
            self._recording(record, channels),
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
            rows = [one.form.rows for one in candidates if one.form.rows is not None]
            if rounded or any(one.repeats > 1 for one in rows):
                reference = self.reference(candidates)
            for one in candidates:
                one.form.multiply(one.module, one.channels)
            stacks = [one.module for one in candidates if one.is_of_experts]
            if stacks:
                grown = self.reference().outputs
                if any(grown.get(one) == reference.outputs.get(one) for one in stacks):
                    return _ZERO
            for one in candidates:
                for bound in one.targets:
                    raw = bound.raw
                    with torch.no_grad():
                        raw.div_(along_inputs(one.channels.to(raw), raw, bound.plan.input_dim))
            found = self.reference(candidates)
        return self._difference(candidates, found, reference)

    def _difference(
        self, candidates: Sequence[Candidate], found: Record, reference: Record
    ) -> str | None:
        apart = [one for one in candidates if not one.is_of_experts]
        scaled = {bound.module for one in apart for bound in one.targets}
        for module in scaled:
            inputs = found.inputs.get(module)
            if inputs is None or inputs != reference.doubled.get(module):
                return NOT_ALONE
            if inputs == reference.inputs[module]:
                return _ZERO
        makers = {one.module for one in apart}
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
    def _recording(self, record: Record, channels: Mapping[nn.Module, Tensor]) -> Iterator[None]:
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
                    is_quantized = (module, "input") in sides
                    enter = _inputs_into(record, reader, channels.get(module), is_quantized)
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
            *(one.module._parameters.get(name) for name in (one.form.weight, one.form.bias)),
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


def channels_of(bound: BoundTarget) -> int:
    """Return how many input channels a weight has, those of all groups of a convolution.

    Args:
        bound: the weight.
    """
    length, groups = int(bound.raw.shape[bound.plan.input_dim]), getattr(bound.module, "groups", 1)
    # The weight of a transposed convolution has the inputs of all groups.
    is_of_one_group = bound.plan.input_dim == 1 and isinstance(groups, int)
    return length * groups if is_of_one_group else length


def _outputs_into(record: Record, key: nn.Module | None) -> Callable[..., None]:
    def see(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if key is not None:
            record.order.append(key)
        record.outputs.setdefault(key, []).extend(map(print_of, _tensors(output)))

    return see


def _inputs_into(
    record: Record, reader: BoundTarget | None, channels: Tensor | None, is_quantized: bool
) -> Callable[..., None]:
    def see(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        values = list(_tensors([*args, *kwargs.values()]))
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
