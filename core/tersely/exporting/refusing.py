"""Targets that no exported program can hold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import nn

from tersely.engine.targets.binding import BoundTarget
from tersely.errors import ExportError, Refusal
from tersely.exporting.steps import need_integers
from tersely.instrument.modules.classes import instruments_of, is_sharded
from tersely.instrument.names import INSTRUMENTS, full_name
from tersely.instrument.scales.by_algorithm import Dynamic, Learned, Simulated
from tersely.instrument.scales.moving_range import Follow
from tersely.instrument.scales.quantizing import Quantize
from tersely.quantization.integers import IntegerTensor

Integers = Sequence[tuple[BoundTarget, IntegerTensor]]
"""The quantized parameters of a session, with their integers."""


def need_to_hold(model: nn.Module, integers: Integers) -> None:
    """Raise an error that names every target that an exported program cannot hold.

    Args:
        model: the session's model, attached or finalized.
        integers: its quantized parameters.

    Raises:
        ExportError: there are such targets.
    """
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
                "its algorithm rounds inputs and outputs in its own way, which no operator of an "
                "exported program does; quantize it with ptq or qat",
                name,
            )
            continue
        grids = [step.inner.grid for step in steps if isinstance(step, (Dynamic, Follow, Learned))]
        grids += [step.grid for step in steps if isinstance(step, Quantize)]
        for grid in grids:
            if grid.has_float_zero_point or grid.has_levels:
                yield Refusal(
                    "its algorithm rounds inputs and outputs to other values than whole steps, "
                    "which no operator of an exported program does; quantize it with ptq or qat",
                    name,
                )
            elif grid.dtype.startswith("float8"):
                yield Refusal(
                    f"an exported program holds integers, and this is quantized to {grid.dtype}; "
                    "quantize it to int8, or leave it out",
                    name,
                )
