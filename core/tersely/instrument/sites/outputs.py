"""Output sites: applied to what every call returns, whose containers keep their type."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from tersely.errors import SessionError
from tersely.instrument.instruments import OutputSite, Transform
from tersely.instrument.sites.elements import (
    in_turn,
    key_of_tensor,
    no_element,
    refuse_taps,
    replace_element,
    several_tensors,
)
from tersely.instrument.sites.nested import fields_of, place_in, with_item
from tersely.instrument.tapping import Tap
from tersely.planning.targets.addresses import OUTPUT


def process_output(
    module: nn.Module, sites: Mapping[OutputSite, tuple[Transform, ...]], output: Any
) -> Any:
    """Apply every output site to what forward returned, keeping the container's type.

    Args:
        module: the module that was called.
        sites: its output sites with their transforms.
        output: a tensor, list, tuple, named tuple, dictionary or ModelOutput.

    Raises:
        SessionError: the output has no such element, or the element is not a tensor.
    """
    for site, transforms in sites.items():
        output = _process_one(module, site, transforms, output)
    return output


def _process_one(
    module: nn.Module, site: OutputSite, transforms: tuple[Transform, ...], output: Any
) -> Any:
    if site.path:
        return _process_nested(module, site, output, transforms)
    apply = in_turn(module, site, transforms)
    key = site.key
    fields = output if isinstance(output, Mapping) else fields_of(output)
    if (
        fields is not None
        and _is_unnamed(key, fields)
        and all(isinstance(one, Tap) for one in transforms)
    ):
        # A tap never disturbs a forward: it reports what it could not remember with the loss.
        tensors = [name for name, value in fields.items() if isinstance(value, Tensor)]
        if len(tensors) > 1:
            refuse_taps(transforms, several_tensors(module, site, tensors))
            return output
    if isinstance(output, Tensor):
        if key not in (None, 0):
            raise no_element(module, site, output)
        return apply(output)
    if fields is not None:
        return _replace_named(module, site, output, fields, apply)
    place = place_in(output, 0 if key is None else key)
    if place is None:
        raise no_element(module, site, output)
    return with_item(output, place, apply)


def _is_unnamed(key: int | str | None, fields: Mapping[Any, Any]) -> bool:
    return not key and key not in fields and str(key) not in fields


def _process_nested(
    module: nn.Module, site: OutputSite, output: Any, transforms: tuple[Transform, ...]
) -> Any:
    apply = in_turn(module, site, transforms)
    flat = site.target.removeprefix(OUTPUT)
    if isinstance(output, Mapping) and flat in output:
        return with_item(output, flat, apply)  # a key that holds a dot
    path = () if site.key is None else (site.key, *site.path)
    try:
        return replace_element(module, site, output, path, apply)
    except SessionError as error:
        if not all(isinstance(one, Tap) for one in transforms):
            raise
        refuse_taps(transforms, str(error))
        return output


def _replace_named(
    module: nn.Module,
    site: OutputSite,
    output: Any,
    fields: Mapping[Any, Any],
    apply: Callable[[Any], Any],
) -> Any:
    key = site.key
    if key is None or _is_unnamed(key, fields):
        place = key_of_tensor(module, site, fields)
    else:
        place = place_in(output, key)
    if place is not None:
        return with_item(output, place, apply)
    nested = _element_of(key, fields)
    if nested is None:
        raise no_element(module, site, output)
    return replace_element(module, site, output, nested, apply)


def _element_of(key: int | str | None, fields: Mapping[Any, Any]) -> tuple[str, int] | None:
    # `_output_hidden_states_3`: element 3 of the tuple that a transformer returns as hidden_states.
    if not isinstance(key, str):
        return None
    name, _, index = key.rpartition("_")
    found = fields.get(name)
    if not index.isdecimal() or not isinstance(found, (list, tuple)) or int(index) >= len(found):
        return None
    return name, int(index)
