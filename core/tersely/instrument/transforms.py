"""The steps on one tensor of an instrumented module, and changing those of one place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

import attrs
from torch import Tensor, nn

from tersely.instrument.instruments import Instruments, Transform
from tersely.instrument.modules.classes import instruments_of, replace_instruments
from tersely.instrument.names import INSTRUMENTS, TAP

Site = TypeVar("Site")


def put(module: nn.Module, target: str, transforms: Sequence[Transform], *, place: int) -> None:
    """Give one tensor of an instrumented module other steps at one place.

    Args:
        module: an instrumented module with this target.
        target: the parameter's name or the address of the input or output.
        transforms: the steps there; none removes what is there.
        place: which of the places of `tersely.instrument.names`.

    Raises:
        KeyError: the module is not instrumented for this target.
    """
    instruments = instruments_of(module)
    if target in instruments.parameters:
        parameters = _replaced(instruments.parameters, target, transforms, place)
        replace_instruments(module, attrs.evolve(instruments, parameters=parameters))
        return
    for inputs_site in instruments.inputs:
        if inputs_site.target == target:
            inputs = _replaced(instruments.inputs, inputs_site, transforms, place)
            replace_instruments(module, attrs.evolve(instruments, inputs=inputs))
            return
    for output_site in instruments.outputs:
        if output_site.target == target:
            outputs = _replaced(instruments.outputs, output_site, transforms, place)
            replace_instruments(module, attrs.evolve(instruments, outputs=outputs))
            return
    raise KeyError(f"{type(module).__name__} is not instrumented for {target!r}")


@attrs.define(eq=False)
class SharedPut:
    """Adds one step to one place of many modules; similar modules share their instruments.

    It remembers what became of which instruments, hence it is mutable, and made for one pass.

    Attributes:
        place: which of the places of `tersely.instrument.names`.
    """

    place: int
    _made: dict[tuple[int, str, int], tuple[Instruments, Transform, Instruments]] = attrs.field(
        factory=dict, init=False
    )

    def put(self, module: nn.Module, target: str, step: Transform) -> None:
        """Give one tensor of an instrumented module another step, as `put` does.

        Args:
            module: an instrumented module with this target.
            target: the parameter's name or the address of the input or output.
            step: the step at this place.

        Raises:
            KeyError: the module is not instrumented for this target.
        """
        # Read and written without a call: a large model has tens of thousands of targets.
        attributes = module.__dict__
        before = attributes[INSTRUMENTS]
        key = (id(before), target, id(step))
        known = self._made.get(key)
        if known is None:
            put(module, target, (step,), place=self.place)
            # Instruments and step are kept with the result, so that no identity is used again.
            self._made[key] = (before, step, attributes[INSTRUMENTS])
        else:
            attributes[INSTRUMENTS] = known[2]


def chain_of(module: nn.Module, target: str) -> tuple[Transform, ...]:
    """Return the steps on one tensor of an instrumented module, in order.

    Args:
        module: an instrumented module with this target.
        target: the parameter's name or the address of the input or output.
    """
    instruments = instruments_of(module)
    if target in instruments.parameters:
        return instruments.parameters[target]
    for inputs_site, transforms in instruments.inputs.items():
        if inputs_site.target == target:
            return transforms
    for output_site, transforms in instruments.outputs.items():
        if output_site.target == target:
            return transforms
    raise KeyError(f"{type(module).__name__} is not instrumented for {target!r}")


def processed(module: nn.Module, target: str, value: Tensor, *, until: int = TAP) -> Tensor:
    """Return a tensor as forward computes with it, without moving what follows training.

    Args:
        module: an instrumented module with this target.
        target: the parameter's name or the address of the input or output.
        value: the tensor as it comes.
        until: the place of the first step that is left out.
    """
    for transform in chain_of(module, target):
        if transform.place < until:
            value = getattr(transform, "settled", transform)(module, value)
    return value


def _replaced(
    chains: Mapping[Site, tuple[Transform, ...]],
    site: Site,
    transforms: Sequence[Transform],
    place: int,
) -> dict[Site, tuple[Transform, ...]]:
    before = [one for one in chains[site] if one.place < place]
    after = [one for one in chains[site] if one.place > place]
    return {**chains, site: (*before, *transforms, *after)}
