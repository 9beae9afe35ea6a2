"""The tensor that a site means in what a call takes or returns, and the errors without one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from tersely.errors import SessionError
from tersely.instrument.instruments import InputSite, OutputSite, Transform
from tersely.instrument.names import full_name
from tersely.instrument.sites.nested import fields_of, replace_nested, with_item
from tersely.instrument.tapping import Tap


def in_turn(
    module: nn.Module, site: InputSite | OutputSite, transforms: tuple[Transform, ...]
) -> Callable[[Any], Any]:
    """Return what applies transforms one after the other to a tensor, and leaves None alone.

    Args:
        module: the module that is called.
        site: the site.
        transforms: the transforms.
    """

    def apply(value: Any) -> Any:
        if value is None:
            return None
        if not isinstance(value, Tensor):
            raise not_a_tensor(module, site, value)
        for transform in transforms:
            value = transform(module, value)
        return value

    return apply


def key_of_tensor(
    module: nn.Module, site: InputSite | OutputSite, mapping: Mapping[Any, Any]
) -> Any:
    """Return the key of the one tensor that a mapping holds, or None without any (rule T1.4).

    Args:
        module: the module that is called.
        site: the site.
        mapping: what it means.

    Raises:
        SessionError: the mapping holds several tensors.
    """
    keys = [key for key, value in mapping.items() if isinstance(value, Tensor)]
    if len(keys) > 1:
        raise site_error(module, site, several_tensors(module, site, keys))
    return keys[0] if keys else None


def replace_element(
    module: nn.Module,
    site: InputSite | OutputSite,
    value: Any,
    path: tuple[int | str, ...],
    apply: Callable[[Any], Any],
) -> Any:
    """Return a container with another value at the end of a path; nothing is modified.

    Args:
        module: the module that is called.
        site: the site.
        value: the outermost container.
        path: the steps to the tensor, or to a mapping with one tensor.
        apply: returns the other value.

    Raises:
        SessionError: there is no such element, or it is not a tensor.
    """

    def inner(item: Any) -> Any:
        fields = item if isinstance(item, Mapping) else fields_of(item)
        if fields is None:
            return apply(item)
        key = key_of_tensor(module, site, fields)
        if key is None:
            raise no_element(module, site, item)
        return with_item(item, key, apply)

    return replace_nested(value, path, inner, missing=lambda one: no_element(module, site, one))


def refuse_taps(transforms: tuple[Transform, ...], problem: str) -> None:
    """Tell the taps among some transforms why they get no value.

    Args:
        transforms: the transforms of a site.
        problem: why.
    """
    for tap in transforms:
        if isinstance(tap, Tap):
            tap.refuse(problem)


def site_error(module: nn.Module, site: InputSite | OutputSite, message: str) -> SessionError:
    """Return an error that names the target of a site.

    Args:
        module: the module that is called.
        site: the site.
        message: its text.
    """
    return SessionError(message, target=full_name(module, site.target))


def several_tensors(module: nn.Module, site: InputSite | OutputSite, keys: list[Any]) -> str:
    """Return the text of an error for a mapping in which several tensors could be meant.

    Args:
        module: the module that is called.
        site: the site.
        keys: where the tensors are.
    """
    side, what_to_do = "input", "target the input of a module that is called with a tensor"
    if isinstance(site, OutputSite):
        side, what_to_do = "output", f"write the key, as in _output_{keys[0]}"
    if site.path:
        what_to_do = f"write the key, as in {site.target}.{keys[0]}"
    return (
        f"{side} target {site.target!r} of a {type(module).__name__} is a mapping with several "
        f"tensors: {', '.join(map(str, keys))}; {what_to_do}"
    )


def not_a_tensor(module: nn.Module, site: InputSite | OutputSite, value: object) -> SessionError:
    """Return the error for a target that is not a tensor.

    Args:
        module: the module that is called.
        site: the site.
        value: what is in its place.
    """
    message = (
        f"{_side(site)} target {site.target!r} of a {type(module).__name__} is a "
        f"{type(value).__name__}, not a tensor; address a tensor, or leave this target out"
    )
    return site_error(module, site, message)


def no_element(module: nn.Module, site: InputSite | OutputSite, found: object) -> SessionError:
    """Return the error for a container that lacks the element that a site addresses.

    Args:
        module: the module that is called.
        site: the site.
        found: the container.
    """
    fields = found if isinstance(found, Mapping) else fields_of(found)
    if fields is not None:
        has = f"a {type(found).__name__} with the keys {', '.join(map(str, fields))}"
    elif isinstance(found, (list, tuple)):
        has = f"a {type(found).__name__} of {len(found)}"
    else:
        has = f"one {type(found).__name__}"
    where = "on the way to it there is" if site.path else "it returned"
    message = f"a {type(module).__name__} has no {_side(site)} {site.target!r}: {where} {has}"
    return site_error(module, site, message)


def _side(site: InputSite | OutputSite) -> str:
    return "output" if isinstance(site, OutputSite) else "input"
