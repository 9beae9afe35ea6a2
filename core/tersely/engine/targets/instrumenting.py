"""From a bound plan to the instruments of each module."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
from torch import nn

from tersely.arithmetic.reused_memory import Reused
from tersely.contracts.settings import PruningSetting
from tersely.contracts.target_plan import TargetPlan
from tersely.engine.targets.binding import Binding
from tersely.instrument.instruments import Instruments, OutputSite, Transform
from tersely.instrument.masks.mask_transforms import ActivationMask, ParameterMask, spatial_dims
from tersely.instrument.names import mask_buffer
from tersely.instrument.sites.inputs import input_site
from tersely.planning.targets.addresses import Address, parse_address
from tersely.planning.targets.signature import signature_of


@attrs.frozen
class _Wish:
    """One tensor of a module to process, without the module: what equal modules have in common.

    Only pruning knows here what to do with it; the other methods put in their steps later.
    """

    target: str
    is_masked: bool
    is_activation: bool
    is_additive: bool
    mask_value: float
    is_aligned: bool
    channel_dim: int
    is_of_experts: bool
    spatial: int | None


@attrs.frozen(eq=False)
class _Profile:
    """What some modules have in common: their wishes, and where one more wish leads.

    Profiles form a tree that is walked wish by wish, so that a large model makes no list per
    module.
    """

    wishes: tuple[_Wish, ...] = ()
    longer: dict[_Key, _Profile] = attrs.field(factory=dict)
    made: dict[type[nn.Module], Instruments] = attrs.field(factory=dict)

    def extended(self, key: _Key, target: TargetPlan) -> _Profile:
        """Return the profile with one more wish."""
        if key not in self.longer:
            wish = _Wish(
                key[1],
                target.method == "pruning",
                target.kind in ("input", "output"),
                isinstance(target.setting, PruningSetting) and target.setting.is_additive,
                _mask_value(target),
                target.align is not None,
                target.channel_dim,
                target.has_experts,
                spatial_dims(target.module_type),
            )
            self.longer[key] = _Profile((*self.wishes, wish))
        return self.longer[key]

    def instruments(self, module: nn.Module) -> Instruments:
        """Return the instruments of a module with these wishes, shared within its class."""
        cls = type(module)
        if cls not in self.made:
            self.made[cls] = _instruments(module, self.wishes)
        return self.made[cls]


_Key = tuple[int, str, str, int]
"""Identity of the setting, attribute or address, module type and channel dimension."""


def wire(binding: Binding) -> dict[nn.Module, Instruments]:
    """Return what every module has to do.

    Args:
        binding: a plan bound to a model.
    """
    nothing = _Profile()
    profiles: dict[nn.Module, _Profile] = {}
    is_plain = binding.owners.is_plain
    for target, module in zip(binding.plan.targets, binding.modules, strict=True):
        # Equal targets share their setting, and with it what is wished of their modules.
        key = (id(target.setting), target.target, target.module_type, target.channel_dim)
        profiles[module] = profiles.get(module, nothing).extended(key, target)
        if not is_plain:
            for other, attribute in binding.others(target, module):
                key = (id(target.setting), attribute, target.module_type, target.channel_dim)
                profiles[other] = profiles.get(other, nothing).extended(key, target)
    return {module: profile.instruments(module) for module, profile in profiles.items()}


def _mask_value(target: TargetPlan) -> float:
    setting = target.setting
    return float(setting.mask_value) if isinstance(setting, PruningSetting) else 0.0


def _instruments(module: nn.Module, wishes: Sequence[_Wish]) -> Instruments:
    instruments = Instruments()
    for wish in wishes:
        buffer = mask_buffer(wish.target)
        if wish.is_activation:
            mask = ActivationMask(
                buffer,
                is_additive=wish.is_additive,
                channel_dim=wish.channel_dim,
                spatial=wish.spatial,
                target=wish.target,
                is_of_channels=wish.is_aligned,
                mask_value=wish.mask_value,
            )
            masks = (mask,) if wish.is_masked else ()
            instruments = with_site(instruments, module, wish.target, *masks)
        else:
            before = instruments.parameters.get(wish.target, ())
            masking = ParameterMask(buffer, wish.is_additive, wish.mask_value)
            after = (masking,) if wish.is_masked else ()
            parameters = {**instruments.parameters, wish.target: (*before, *after)}
            instruments = attrs.evolve(
                instruments,
                parameters=parameters,
                reused=instruments.reused or (Reused() if wish.is_of_experts else None),
            )
    return instruments


def with_site(
    instruments: Instruments, module: nn.Module, target: str, *transforms: Transform
) -> Instruments:
    """Return instruments with further transforms, the last ones, on an input or output.

    Args:
        instruments: what the module does so far.
        module: the module, for its forward's signature.
        target: the address of the input or output.
        *transforms: what to append; none only makes the place for later.
    """
    address = parse_address(target) or Address("input", target)
    if address.side == "input":
        site = next(
            (one for one in instruments.inputs if one.target == target), None
        ) or input_site(target, address, signature_of(module))
        inputs = {**instruments.inputs, site: (*instruments.inputs.get(site, ()), *transforms)}
        return attrs.evolve(instruments, inputs=inputs)
    place = next((one for one in instruments.outputs if one.target == target), None) or OutputSite(
        target, address.key, address.path
    )
    outputs = {**instruments.outputs, place: (*instruments.outputs.get(place, ()), *transforms)}
    return attrs.evolve(instruments, outputs=outputs)
