"""Input sites: compiled from addresses once, then applied to the arguments of every call."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from tersely.instrument.instruments import InputSite, Transform
from tersely.instrument.sites.elements import (
    in_turn,
    key_of_tensor,
    not_a_tensor,
    refuse_taps,
    replace_element,
    site_error,
)
from tersely.instrument.sites.nested import items_of
from tersely.instrument.tapping import Tap
from tersely.planning.targets.addresses import Address
from tersely.planning.targets.signature import Signature


def input_site(target: str, address: Address, signature: Signature) -> InputSite:
    """Compile an input address against a signature.

    Args:
        target: the target's name.
        address: where it is.
        signature: the module's forward.
    """
    order = (*signature.positional, *signature.keyword_only)
    key = address.key
    if key is None:
        return InputSite(target, None, None, order, path=address.path)
    index: int | None
    name: str | None
    if isinstance(key, str):
        index, name = signature.index_of(key), key
    else:
        index = key
        name = signature.positional[key] if key < len(signature.positional) else None
    default = signature.defaults.get(name) if name is not None else None
    default = default if isinstance(default, Tensor) else None
    return InputSite(target, index, name, order, default, address.path)


def process_inputs(
    module: nn.Module,
    sites: Mapping[InputSite, tuple[Transform, ...]],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Apply every input site to one call's arguments.

    Args:
        module: the module that is called.
        sites: its input sites with their transforms.
        args: positional arguments; not modified.
        kwargs: keyword arguments; not modified.

    Raises:
        SessionError: an argument that is a target is neither a tensor nor None, or no argument is
            a tensor and one holds some.
    """
    positional, named = list(args), dict(kwargs)
    for site, transforms in sites.items():
        place: Any
        key: Any
        place, key = _find_argument(site, positional, named)
        if key is None:
            _refuse_container(module, site, transforms, _named(site, positional, named))
            continue
        value = place[key]
        if value is None:
            continue  # an optional input that this call leaves out
        if site.path:
            # The caller's containers are not modified: those on the way are rebuilt.
            apply = in_turn(module, site, transforms)
            place[key] = replace_element(module, site, value, site.path, apply)
            continue
        if isinstance(value, Mapping) and (inner := key_of_tensor(module, site, value)) is not None:
            # The caller's mapping is not modified.
            place[key] = place = copy.copy(value)
            key, value = inner, value[inner]
        if not isinstance(value, Tensor):
            raise not_a_tensor(module, site, value)
        for transform in transforms:
            value = transform(module, value)
        place[key] = value
    return tuple(positional), named


def _refuse_container(
    module: nn.Module,
    site: InputSite,
    transforms: tuple[Transform, ...],
    arguments: Iterable[tuple[str | int, Any]],
) -> None:
    # No argument is a tensor: one may hold some, as a packed sequence or a list does.
    if site.index is not None or site.name is not None:
        return
    for argument, value in arguments:
        items = items_of(value) or {}
        places = [place for place, item in items.items() if isinstance(item, Tensor)]
        if not places:
            continue
        problem = (
            f"input target {site.target!r} of a {type(module).__name__} has no tensor among its "
            f"arguments, but a {type(value).__name__} that holds some; address one of them, as in "
            f"_input_{argument}.{places[0]}, or leave this target out"
        )
        if all(isinstance(one, Tap) for one in transforms):
            refuse_taps(transforms, problem)
            return
        raise site_error(module, site, problem)


def _named(
    site: InputSite, positional: Sequence[Any], named: Mapping[str, Any]
) -> Iterator[tuple[str | int, Any]]:
    """Yield the arguments of a call with the names, or positions, by which they are addressed."""
    for index, value in enumerate(positional):
        yield site.order[index] if index < len(site.order) else index, value
    yield from named.items()


def _find_argument(
    site: InputSite, positional: list[Any], named: dict[str, Any]
) -> tuple[Any, Any]:
    if site.index is None and site.name is None:
        # The first tensor; where there is none, the first mapping, which may hold one.
        for kind in (Tensor, Mapping):
            for index, value in enumerate(positional):
                if isinstance(value, kind):
                    return positional, index
            for name in (*site.order, *named):
                if isinstance(named.get(name), kind):
                    return named, name
        return named, None
    if site.index is not None and site.index < len(positional):
        return positional, site.index
    if site.name is not None:
        if site.name not in named and site.default is not None:
            named[site.name] = site.default
        if site.name in named:
            return named, site.name
    return named, None
