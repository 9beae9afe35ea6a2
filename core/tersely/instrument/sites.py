"""Input and output sites: compiled from addresses once, then applied at every call."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from tersely.errors import SessionError
from tersely.instrument.instruments import InputSite, OutputSite, Transform
from tersely.instrument.names import full_name
from tersely.instrument.nested import fields_of, items_of, place_in, replace_nested, with_item
from tersely.instrument.tapping import Tap
from tersely.planning.targets.addresses import OUTPUT, Address
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
            # The caller's containers are not modified: those on the way are built anew.
            apply = _steps(module, site, transforms)
            place[key] = _replace_nested(module, site, value, site.path, apply)
            continue
        if (
            isinstance(value, Mapping)
            and (inner := _key_of_tensor(module, site, value)) is not None
        ):
            # The caller's mapping is not modified.
            place[key] = place = copy.copy(value)
            key, value = inner, value[inner]
        if not isinstance(value, Tensor):
            raise _error(module, site, _not_a_tensor(module, "input", site.target, value))
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
            _refuse(transforms, problem)
            return
        raise _error(module, site, problem)


def _named(
    site: InputSite, positional: Sequence[Any], named: Mapping[str, Any]
) -> Iterator[tuple[str | int, Any]]:
    """Yield the arguments of a call with the names, or positions, by which they are addressed."""
    for index, value in enumerate(positional):
        yield site.order[index] if index < len(site.order) else index, value
    yield from named.items()


def _key_of_tensor(
    module: nn.Module, site: InputSite | OutputSite, mapping: Mapping[Any, Any]
) -> Any:
    """Return the key of the one tensor that a mapping holds, or None without any (rule T1.4)."""
    keys = [key for key, value in mapping.items() if isinstance(value, Tensor)]
    if len(keys) > 1:
        raise _error(module, site, _several_tensors(module, site, keys))
    return keys[0] if keys else None


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
    apply = _steps(module, site, transforms)
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
            _refuse(transforms, _several_tensors(module, site, tensors))
            return output
    if isinstance(output, Tensor):
        if key not in (None, 0):
            raise _error(module, site, _no_element(module, site, output))
        return apply(output)
    if fields is not None:
        return _replace_named(module, site, output, fields, apply)
    place = place_in(output, 0 if key is None else key)
    if place is None:
        raise _error(module, site, _no_element(module, site, output))
    return with_item(output, place, apply)


def _is_unnamed(key: int | str | None, fields: Mapping[Any, Any]) -> bool:
    return not key and key not in fields and str(key) not in fields


def _process_nested(
    module: nn.Module, site: OutputSite, output: Any, transforms: tuple[Transform, ...]
) -> Any:
    apply = _steps(module, site, transforms)
    flat = site.target.removeprefix(OUTPUT)
    if isinstance(output, Mapping) and flat in output:
        return with_item(output, flat, apply)  # a key that holds a dot
    path = () if site.key is None else (site.key, *site.path)
    try:
        return _replace_nested(module, site, output, path, apply)
    except SessionError as error:
        if not all(isinstance(one, Tap) for one in transforms):
            raise
        _refuse(transforms, str(error))
        return output


def _replace_nested(
    module: nn.Module,
    site: InputSite | OutputSite,
    value: Any,
    path: tuple[int | str, ...],
    apply: Callable[[Any], Any],
) -> Any:
    def inner(item: Any) -> Any:
        fields = item if isinstance(item, Mapping) else fields_of(item)
        if fields is None:
            return apply(item)
        key = _key_of_tensor(module, site, fields)
        if key is None:
            raise _error(module, site, _no_element(module, site, item))
        return with_item(item, key, apply)

    return replace_nested(
        value, path, inner, missing=lambda one: _error(module, site, _no_element(module, site, one))
    )


def _error(module: nn.Module, site: InputSite | OutputSite, message: str) -> SessionError:
    return SessionError(message, target=full_name(module, site.target))


def _refuse(transforms: tuple[Transform, ...], problem: str) -> None:
    for tap in transforms:
        if isinstance(tap, Tap):
            tap.refuse(problem)


def _steps(
    module: nn.Module, site: InputSite | OutputSite, transforms: tuple[Transform, ...]
) -> Callable[[Any], Any]:
    def apply(value: Any) -> Any:
        if value is None:
            return None
        if not isinstance(value, Tensor):
            side = "output" if isinstance(site, OutputSite) else "input"
            raise _error(module, site, _not_a_tensor(module, side, site.target, value))
        for transform in transforms:
            value = transform(module, value)
        return value

    return apply


def _replace_named(
    module: nn.Module,
    site: OutputSite,
    output: Any,
    fields: Mapping[Any, Any],
    apply: Callable[[Any], Any],
) -> Any:
    key = site.key
    if key is None or _is_unnamed(key, fields):
        place = _key_of_tensor(module, site, fields)
    else:
        place = place_in(output, key)
    if place is not None:
        return with_item(output, place, apply)
    nested = _element_of(key, fields)
    if nested is None:
        raise _error(module, site, _no_element(module, site, output))
    return _replace_nested(module, site, output, nested, apply)


def _element_of(key: int | str | None, fields: Mapping[Any, Any]) -> tuple[str, int] | None:
    # `_output_hidden_states_3`: element 3 of the tuple that a transformer returns as hidden_states.
    if not isinstance(key, str):
        return None
    name, _, index = key.rpartition("_")
    found = fields.get(name)
    if not index.isdecimal() or not isinstance(found, (list, tuple)) or int(index) >= len(found):
        return None
    return name, int(index)


def _several_tensors(module: nn.Module, site: InputSite | OutputSite, keys: list[Any]) -> str:
    side, what_to_do = "input", "target the input of a module that is called with a tensor"
    if isinstance(site, OutputSite):
        side, what_to_do = "output", f"write the key, as in _output_{keys[0]}"
    if site.path:
        what_to_do = f"write the key, as in {site.target}.{keys[0]}"
    return (
        f"{side} target {site.target!r} of a {type(module).__name__} is a mapping with several "
        f"tensors: {', '.join(map(str, keys))}; {what_to_do}"
    )


def _not_a_tensor(module: nn.Module, side: str, target: str, value: object) -> str:
    return (
        f"{side} target {target!r} of a {type(module).__name__} is a {type(value).__name__}, not a "
        "tensor; address a tensor, or leave this target out"
    )


def _no_element(module: nn.Module, site: InputSite | OutputSite, found: object) -> str:
    fields = found if isinstance(found, Mapping) else fields_of(found)
    if fields is not None:
        has = f"a {type(found).__name__} with the keys {', '.join(map(str, fields))}"
    elif isinstance(found, (list, tuple)):
        has = f"a {type(found).__name__} of {len(found)}"
    else:
        has = f"one {type(found).__name__}"
    side = "output" if isinstance(site, OutputSite) else "input"
    where = "on the way to it there is" if site.path else "it returned"
    return f"a {type(module).__name__} has no {side} {site.target!r}: {where} {has}"
