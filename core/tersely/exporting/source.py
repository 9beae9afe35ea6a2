"""A session as its exporters see it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from tersely.contracts.calling import call_model
from tersely.contracts.exporter import ExportSource, QuantizedActivation
from tersely.contracts.target_plan import TargetPlan
from tersely.exporting.preparing import with_integers
from tersely.exporting.program import make_program
from tersely.exporting.refusing import Integers
from tersely.instrument.classes import instruments_of
from tersely.instrument.in_force import qparams_of
from tersely.instrument.instruments import Transform
from tersely.instrument.moving_range import Follow
from tersely.instrument.names import INSTRUMENTS, PREFIX, full_name
from tersely.instrument.quantizing import Dynamic, Learned, Quantize
from tersely.shrinking.program import evaluating


def make_source(
    model: nn.Module,
    integers: Integers,
    targets: Sequence[TargetPlan],
    *,
    example_inputs: Any = None,
    dynamic_shapes: Any = None,
    norms: Mapping[nn.Module, nn.Module],
) -> ExportSource:
    """Return a session as its exporters see it.

    Args:
        model: the session's model, attached or finalized.
        integers: its quantized parameters.
        targets: the plan's targets.
        example_inputs: what to call the model with, or None.
        dynamic_shapes: which dimensions may differ; see `make_program`.
        norms: the layers of a finished model that have taken up their batch norm, with the norm.

    Raises:
        ExportError: an exported program cannot hold a target.
    """
    return ExportSource(
        model=model,
        targets={one.name: one for one in targets if one.method == "quantization"},
        integers={bound.plan.name: tensor for bound, tensor in integers},
        activations=tuple(_activations(model)),
        example_inputs=example_inputs,
        make_floats=partial(_floats, model, integers, norms),
        make_program=partial(
            make_program,
            model,
            integers,
            example_inputs,
            dynamic_shapes=dynamic_shapes,
            norms=norms,
        ),
        simulate=_simulator(model),
    )


def _simulator(model: nn.Module) -> Callable[[Any], Any]:
    def simulate(inputs: Any) -> Any:
        with evaluating(model), torch.no_grad():
            return call_model(model, inputs)

    return simulate


def _floats(
    model: nn.Module, integers: Integers, norms: Mapping[nn.Module, nn.Module]
) -> Mapping[str, Tensor]:
    found = {}
    with with_integers(model, integers, norms=norms) as stored:
        for path, module in model.named_modules(remove_duplicate=False):
            skipped = {*stored.get(module, ()), *module._non_persistent_buffers_set}
            for name, tensor in (*module._parameters.items(), *module._buffers.items()):
                if tensor is not None and name not in skipped and not name.startswith(PREFIX):
                    found[f"{path}.{name}" if path else name] = tensor.detach()
    return found


def _activations(model: nn.Module) -> Iterator[QuantizedActivation]:
    for path, module in model.named_modules():
        if INSTRUMENTS not in module.__dict__:
            continue
        instruments = instruments_of(module)
        for site, chain in instruments.inputs.items():
            yield from _described(module, path, site.target, chain, is_input=True)
        for output, chain in instruments.outputs.items():
            yield from _described(module, path, output.target, chain, is_input=False)


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
