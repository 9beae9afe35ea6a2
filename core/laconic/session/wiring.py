"""From handles to the instruments of each module."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
from torch import nn

from laconic.instrument.instruments import Instruments, OutputSite, Transform
from laconic.instrument.masks import ActivationMask, ParameterMask
from laconic.instrument.names import mask_buffer
from laconic.instrument.sites import input_site
from laconic.planning.addresses import Address, parse_address
from laconic.planning.signature import signature_of
from laconic.session.handles import Handle


@attrs.frozen
class _Wish:
    """A mask on one tensor of a module, without the module: what modules alike have in common."""

    target: str
    is_activation: bool
    is_additive: bool
    channel_dim: int


def wire(handles: Sequence[Handle]) -> dict[nn.Module, Instruments]:
    """Return what every module shall do.

    Args:
        handles: the bound targets, in plan order.
    """
    wishes: dict[nn.Module, list[_Wish]] = {}
    known: dict[tuple[int, str], _Wish] = {}
    for handle in handles:
        plan = handle.plan
        # Targets alike share their setting, and with it what is wished of their modules.
        key = (id(plan.setting), plan.target)
        wish = known.get(key)
        if wish is None or wish.channel_dim != plan.channel_dim:
            wish = known[key] = _wish(handle, plan.target)
        wishes.setdefault(handle.module, []).append(wish)
        for module, attribute in handle.others:
            wishes.setdefault(module, []).append(_wish(handle, attribute))
    shared: dict[tuple[type[nn.Module], tuple[_Wish, ...]], Instruments] = {}
    wanted = {}
    for module, wish_list in wishes.items():
        of_class = (type(module), tuple(wish_list))
        if of_class not in shared:
            shared[of_class] = _instruments(module, wish_list)
        wanted[module] = shared[of_class]
    return wanted


def _wish(handle: Handle, attribute: str) -> _Wish:
    return _Wish(attribute, handle.is_activation, handle.is_additive, handle.plan.channel_dim)


def _instruments(module: nn.Module, wishes: Sequence[_Wish]) -> Instruments:
    instruments = Instruments()
    for wish in wishes:
        buffer = mask_buffer(wish.target)
        if wish.is_activation:
            mask = ActivationMask(buffer, wish.is_additive, wish.channel_dim)
            instruments = with_site(instruments, module, wish.target, mask)
        else:
            parameters = {
                **instruments.parameters,
                wish.target: (ParameterMask(buffer, wish.is_additive),),
            }
            instruments = attrs.evolve(instruments, parameters=parameters)
    return instruments


def with_site(
    instruments: Instruments, module: nn.Module, target: str, transform: Transform
) -> Instruments:
    """Return instruments with one more transform, the last, on an input or output.

    Args:
        instruments: what the module does so far.
        module: the module, for its forward's signature.
        target: the address of the input or output.
        transform: what to append.
    """
    address = parse_address(target) or Address("input", target)
    if address.side == "input":
        site = input_site(target, address, signature_of(module))
        inputs = {**instruments.inputs, site: (*instruments.inputs.get(site, ()), transform)}
        return attrs.evolve(instruments, inputs=inputs)
    place = OutputSite(target, address.key)
    outputs = {**instruments.outputs, place: (*instruments.outputs.get(place, ()), transform)}
    return attrs.evolve(instruments, outputs=outputs)
