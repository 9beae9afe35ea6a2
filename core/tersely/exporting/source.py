"""The view of a session that exporters get."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.export import ExportedProgram

from tersely.contracts.exporter import ExportSource, QuantizedActivation
from tersely.contracts.target_plan import TargetPlan
from tersely.engine.targets.binding import BoundTarget
from tersely.exporting.floats import Computed, floats_of
from tersely.exporting.program import make_program
from tersely.exporting.running import run
from tersely.instrument.folding import activation_after
from tersely.instrument.instruments import Transform
from tersely.instrument.masks.mask_transforms import ActivationMask
from tersely.instrument.masks.mask_values import is_decided
from tersely.instrument.modules.classes import instruments_of
from tersely.instrument.names import INSTRUMENTS, full_name
from tersely.instrument.scales.by_algorithm import Dynamic, Learned
from tersely.instrument.scales.in_force import qparams_of
from tersely.instrument.scales.moving_range import Follow
from tersely.instrument.scales.quantizing import Quantize
from tersely.quantization.integers import IntegerTensor


def make_source(
    model: nn.Module,
    integers: Sequence[tuple[BoundTarget, Callable[[], IntegerTensor]]],
    targets: Sequence[TargetPlan],
    *,
    example_inputs: Any = None,
    dynamic_shapes: Any = None,
    norms: Mapping[nn.Module, nn.Module],
    runtimes: Sequence[str] = (),
) -> ExportSource:
    """Return the view of a session that exporters get.

    Args:
        model: the session's model, attached or finalized.
        integers: its quantized parameters, each with the function that computes its integers.
        targets: the plan's targets.
        example_inputs: inputs of the model, or None.
        dynamic_shapes: the dynamic dimensions; see `make_program`.
        norms: layers of a finished model -> the batch norm folded into each.
        runtimes: the runtimes that the presets of its stages name.

    Raises:
        ExportError: an exported program cannot hold a target.
    """
    stored: dict[nn.Module, set[str]] = {}
    for bound, _ in integers:
        for module, name in bound.owners:
            stored.setdefault(module, set()).add(name)

    def make() -> ExportedProgram:
        computed = [(bound, make_one()) for bound, make_one in integers]
        return make_program(
            model, computed, example_inputs, dynamic_shapes=dynamic_shapes, norms=norms
        )

    return ExportSource(
        model=model,
        targets={one.name: one for one in targets if one.method == "quantization"},
        integers=Computed({bound.plan.name: make for bound, make in integers}),
        activations=tuple(_activations(model)),
        masked_activations=tuple(_masked_activations(model)),
        folded_activations=dict(_folded_activations(model)),
        example_inputs=example_inputs,
        make_floats=partial(floats_of, model, stored, norms=norms),
        make_program=make,
        simulate=partial(run, model),
        runtimes=runtimes,
    )


def _activations(model: nn.Module) -> Iterator[QuantizedActivation]:
    for path, module in model.named_modules():
        if INSTRUMENTS not in module.__dict__:
            continue
        instruments = instruments_of(module)
        for site, chain in instruments.inputs.items():
            yield from _described(module, path, site.target, chain, is_input=True)
        for output, chain in instruments.outputs.items():
            yield from _described(module, path, output.target, chain, is_input=False)


def _masked_activations(model: nn.Module) -> Iterator[str]:
    for _, module in model.named_modules():
        if INSTRUMENTS not in module.__dict__:
            continue
        instruments = instruments_of(module)
        for chain in (*instruments.inputs.values(), *instruments.outputs.values()):
            for step in chain:
                if isinstance(step, ActivationMask):
                    mask = module._buffers.get(step.buffer)
                    if mask is not None and is_decided(mask):
                        yield full_name(module, step.target)


def _folded_activations(model: nn.Module) -> Iterator[tuple[str, Callable[[Tensor], Tensor]]]:
    for path, module in model.named_modules():
        if INSTRUMENTS in module.__dict__:
            activation = activation_after(instruments_of(module).fold)
            if activation is not None:
                yield path, activation


def _described(
    module: nn.Module,
    path: str,
    target: str,
    chain: Sequence[Transform],
    *,
    is_input: bool,
) -> Iterator[QuantizedActivation]:
    for step in chain:
        is_dynamic = isinstance(step, Dynamic)
        if isinstance(step, Quantize):
            inner = step
        elif isinstance(step, (Dynamic, Follow, Learned)):
            inner = step.inner
        else:
            continue
        qparams = None if is_dynamic else qparams_of(module, target)
        if qparams is None and not is_dynamic:
            continue
        yield QuantizedActivation(
            name=full_name(module, target),
            module=path,
            is_input=is_input,
            dtype=inner.grid.dtype,
            scheme=inner.grid.scheme,
            quant_min=inner.grid.quant_min,
            quant_max=inner.grid.quant_max,
            blocks=inner.cut.kind,
            is_dynamic=is_dynamic,
            qparams=qparams,
        )
