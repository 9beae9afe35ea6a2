"""A session's model with integers in the place of weights for a while, and as it was after it.

What each tensor of a module becomes inside the block:

    quantized parameter    a buffer of its name with the integers, read by `ReadIntegers`;
                           ``<name>_scale`` and ``<name>_zero_point`` where there are several
    masked or folded one   a parameter of its name with the values that forward computes with
    batch norm, folded     nothing: its layer has all of it
    input or output        its mask and factors stay, its rounding is `RoundFixed` or `RoundCall`
    anything else          what it was

The user's own Parameter objects come back after it, bit for bit.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import attrs
from torch import Tensor, nn

from tersely.engine.binding import BoundTarget
from tersely.errors import ExportError, Refusal
from tersely.exporting.floats import raw_tensor, value_in_force
from tersely.exporting.steps import (
    ReadIntegers,
    RoundCall,
    RoundFixed,
    block_size_of,
    need_integers,
)
from tersely.instrument.folding import NORMS, Fold
from tersely.instrument.instruments import Instruments, Transform
from tersely.instrument.masks.masks import ActivationMask
from tersely.instrument.modules.attaching import replace_class
from tersely.instrument.modules.classes import instrumented_class, instruments_of, is_sharded
from tersely.instrument.names import INSTRUMENTS, PREFIX, TAP, full_name
from tersely.instrument.scales.in_force import qparams_of
from tersely.instrument.scales.input_scales import ScaleInput
from tersely.instrument.scales.moving_range import Follow
from tersely.instrument.scales.quantizing import Dynamic, Learned, Quantize, Simulated
from tersely.planning.selecting.classes import ORIGINAL
from tersely.quantization.integers import IntegerTensor

Integers = Sequence[tuple[BoundTarget, IntegerTensor]]
"""Every quantized parameter of a session with its integers."""


@contextmanager
def with_integers(
    model: nn.Module, integers: Integers
) -> Iterator[Mapping[nn.Module, Collection[str]]]:
    """Give a model integers in the place of its quantized parameters inside the block.

    It yields, for modules that have integers, the buffers that are integers or read them.

    Args:
        model: the session's model, attached or finalized.
        integers: its quantized parameters.

    Raises:
        ExportError: an exported program cannot hold a target; the model is as it was.
    """
    _refuse(model, integers)
    stored: dict[nn.Module, dict[str, IntegerTensor]] = {}
    for bound, tensor in integers:
        for module, name in bound.owners:
            stored.setdefault(module, {})[name] = tensor
    modules = [
        module for module in model.modules() if INSTRUMENTS in module.__dict__ or module in stored
    ]
    before = [_Before.of(module) for module in modules]
    # By what they were: a tied parameter stays one.
    made: dict[tuple[int, str], Tensor] = {}
    try:
        # All values first: a folded layer reads its norm, whose own are taken away below.
        changes = [_changed(module, stored.get(module, {}), made) for module in modules]
        for change in changes:
            change.put()
        yield {change.module: change.stored for change in changes}
    finally:
        for one in before:
            one.put_back()


def _refuse(model: nn.Module, integers: Integers) -> None:
    refusals: list[Refusal] = []
    for bound, tensor in integers:
        try:
            need_integers(tensor.qparams, bound.plan.name)
        except ExportError as error:
            refusals += error.refusals
    for name, parameter in model.named_parameters():
        if is_sharded(parameter):
            refusals.append(
                Refusal("it is sharded over processes; gather the model before exporting", name)
            )
    for module in model.modules():
        if INSTRUMENTS in module.__dict__:
            refusals += _refused_sites(module)
    if refusals:
        raise ExportError(refusals)


def _refused_sites(module: nn.Module) -> Iterator[Refusal]:
    instruments = instruments_of(module)
    chains = {site.target: steps for site, steps in instruments.inputs.items()}
    chains |= {site.target: steps for site, steps in instruments.outputs.items()}
    for target, steps in chains.items():
        name = full_name(module, target)
        if any(isinstance(step, Simulated) for step in steps):
            yield Refusal(
                "its algorithm rounds inputs and outputs in a way of its own, which no operator "
                "of an exported program does; quantize it with ptq or qat",
                name,
            )
            continue
        grids = [step.inner.grid for step in steps if isinstance(step, (Dynamic, Follow, Learned))]
        grids += [step.grid for step in steps if isinstance(step, Quantize)]
        for grid in grids:
            if grid.dtype.startswith("float8"):
                yield Refusal(
                    f"an exported program holds integers, and this is quantized to {grid.dtype}; "
                    f"quantize it to int8, or leave it out",
                    name,
                )


@attrs.frozen(eq=False)
class _Before:
    """A module as it was.

    Attributes:
        module: the module.
        cls: its class.
        parameters: its parameters.
        buffers: its buffers.
        reserved: its attributes under the reserved prefix.
    """

    module: nn.Module
    cls: type[nn.Module]
    parameters: Mapping[str, nn.Parameter | None]
    buffers: Mapping[str, Tensor | None]
    reserved: Mapping[str, Any]

    @classmethod
    def of(cls, module: nn.Module) -> _Before:
        """Remember a module."""
        reserved = {name: one for name, one in module.__dict__.items() if name.startswith(PREFIX)}
        return cls(module, type(module), dict(module._parameters), dict(module._buffers), reserved)

    def put_back(self) -> None:
        """Give the module what it had."""
        module = self.module
        object.__setattr__(module, "__class__", self.cls)
        for content, known in (
            (module._parameters, self.parameters),
            (module._buffers, self.buffers),
        ):
            content.clear()
            content.update(known)  # type: ignore[arg-type]  # each has its own kind
        for name in [name for name in module.__dict__ if name.startswith(PREFIX)]:
            del module.__dict__[name]
        module.__dict__.update(self.reserved)


@attrs.frozen(eq=False)
class _Change:
    """What a module becomes.

    Attributes:
        module: the module.
        parameters: its parameters.
        buffers: its buffers.
        instruments: what it does.
        stored: the buffers that are integers or read them.
    """

    module: nn.Module
    parameters: Mapping[str, Tensor | None]
    buffers: Mapping[str, Tensor | None]
    instruments: Instruments
    stored: Collection[str] = ()

    def put(self) -> None:
        """Make it so."""
        module, current = self.module, type(self.module)
        original = getattr(current, ORIGINAL, current)
        made = instrumented_class(
            original, frozenset(self.instruments.parameters), self.instruments.has_sites
        )
        is_ours = INSTRUMENTS in module.__dict__
        object.__setattr__(module, "__class__", replace_class(current, made) if is_ours else made)
        module.__dict__[INSTRUMENTS] = self.instruments
        module._parameters.clear()
        module._parameters.update(self.parameters)  # type: ignore[arg-type]  # parameters all
        module._buffers.clear()
        module._buffers.update(self.buffers)


def _changed(
    module: nn.Module,
    stored: Mapping[str, IntegerTensor],
    made: dict[tuple[int, str], Tensor],
) -> _Change:
    instruments = instruments_of(module) if INSTRUMENTS in module.__dict__ else Instruments()
    if instruments.is_folded and isinstance(module, NORMS):
        return _Change(module, {}, {}, attrs.evolve(instruments, parameters={}))
    parameters: dict[str, Tensor | None] = dict(module._parameters)
    buffers = {name: one for name, one in module._buffers.items() if not name.startswith(PREFIX)}
    plain = set(buffers)
    steps: dict[str, tuple[Transform, ...]] = {}
    for name in dict.fromkeys((*instruments.parameters, *stored)):
        if name in stored:
            parameters.pop(name, None)
            steps[name] = (_put_integers(stored[name], name, parameters, buffers, made),)
        else:
            _put_values(module, name, parameters, buffers, made)
            steps[name] = ()
    own = (set(buffers) - plain) | (set(stored) & plain)
    fold = instruments.fold
    # A finished module multiplies its input back, because its weight has the size of its class.
    is_divided = any(
        one.input_scale is not None and not one.divides_weight for one in stored.values()
    )
    inputs = {
        site: _site_steps(module, site.target, chain, is_divided=is_divided)
        for site, chain in instruments.inputs.items()
    }
    outputs = {
        site: _site_steps(module, site.target, chain, is_divided=False)
        for site, chain in instruments.outputs.items()
    }
    for chain in (*inputs.values(), *outputs.values()):
        for step in chain:
            if isinstance(step, (ActivationMask, ScaleInput)):
                buffer = module._buffers.get(step.buffer)
                if buffer is not None:
                    buffers[step.buffer] = buffer
    changed = attrs.evolve(
        instruments,
        parameters=steps,
        inputs={site: chain for site, chain in inputs.items() if chain},
        outputs={site: chain for site, chain in outputs.items() if chain},
        fold=Fold(None, fold.activation) if isinstance(fold, Fold) else fold,
    )
    return _Change(module, parameters, buffers, changed, own)


def _put_integers(
    tensor: IntegerTensor,
    name: str,
    parameters: Mapping[str, Tensor | None],
    buffers: dict[str, Tensor | None],
    made: dict[tuple[int, str], Tensor],
) -> ReadIntegers:
    def put(part: str, value: Tensor) -> str:
        free = f"{name}{part}"
        while free in parameters or free in buffers:
            free += "_"
        buffers[free] = made.setdefault((id(tensor), part), value.detach().clone())
        return free

    qparams = tensor.qparams
    buffers[name] = made.setdefault((id(tensor), ""), tensor.values)
    scale: str | float
    zero_point: str | float
    if qparams.scale.numel() == 1:
        size = (-1,) * tensor.values.ndim
        scale, zero_point = float(qparams.scale), _whole_number(qparams.zero_point)
    else:
        size = block_size_of(qparams, tensor.values.shape)
        scale = put("_scale", qparams.scale.reshape(-1))
        zero_point = put("_zero_point", _whole(qparams.zero_point).reshape(-1))
    factors = None
    if tensor.input_scale is not None and tensor.divides_weight:
        factors = put("_input_scale", tensor.input_scale)
    return ReadIntegers(
        scale=scale,
        zero_point=zero_point,
        size=size,
        limits=(qparams.quant_min, qparams.quant_max),
        out=tensor.dtype,
        factors=factors,
        input_dim=tensor.input_dim,
    )


def _whole(zero_point: Tensor) -> Tensor:
    # Some algorithms choose zero points between integers, which stay what they are.
    is_whole = not zero_point.is_floating_point() or bool((zero_point == zero_point.round()).all())
    return zero_point.long() if is_whole else zero_point


def _whole_number(zero_point: Tensor) -> float:
    found = float(zero_point)
    return int(found) if found == int(found) else found


def _put_values(
    module: nn.Module,
    name: str,
    parameters: dict[str, Tensor | None],
    buffers: dict[str, Tensor | None],
    made: dict[tuple[int, str], Tensor],
) -> None:
    raw = raw_tensor(module, name)
    value = value_in_force(module, name)
    if value is None or value is raw:
        return
    if name in buffers:
        buffers[name] = made.setdefault((id(raw), ""), value.detach())
        return
    key = (id(module), name) if raw is None else (id(raw), "")
    parameters[name] = made.setdefault(key, nn.Parameter(value.detach(), requires_grad=False))


def _site_steps(
    module: nn.Module, target: str, chain: Sequence[Transform], *, is_divided: bool
) -> tuple[Transform, ...]:
    found: list[Transform] = []
    name = full_name(module, target)
    for step in chain:
        if step.place == TAP:
            continue
        if isinstance(step, ScaleInput) and step.is_inverse and is_divided:
            continue
        if isinstance(step, Dynamic):
            found.append(RoundCall(step, name))
        elif isinstance(step, (Quantize, Follow, Learned)):
            inner = step if isinstance(step, Quantize) else step.inner
            qparams = qparams_of(module, target)
            if qparams is not None:
                found.append(RoundFixed(inner, name, qparams))
        else:
            found.append(step)
    return tuple(found)
