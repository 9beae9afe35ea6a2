"""Input and output sites: compiled from addresses once, then applied at every call."""

from __future__ import annotations

import copy
import dataclasses
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from tersely.errors import SessionError
from tersely.instrument.instruments import InputSite, OutputSite, Transform
from tersely.planning.addresses import Address
from tersely.planning.signature import Signature


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
        return InputSite(target, None, None, order)
    index: int | None
    name: str | None
    if isinstance(key, str):
        index, name = signature.index_of(key), key
    else:
        index = key
        name = signature.positional[key] if key < len(signature.positional) else None
    default = signature.defaults.get(name) if name is not None else None
    return InputSite(target, index, name, order, default if isinstance(default, Tensor) else None)


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
        SessionError: an argument that is a target is neither a tensor nor None.
    """
    positional, named = list(args), dict(kwargs)
    for site, transforms in sites.items():
        place: list[Any] | dict[str, Any]
        key: Any
        place, key = _find_argument(site, positional, named)
        if key is None:
            continue
        value = place[key]
        if value is None:
            continue  # an optional input that this call leaves out
        if not isinstance(value, Tensor):
            raise SessionError(_not_a_tensor(module, "input", site.target, value))
        for transform in transforms:
            value = transform(module, value)
        place[key] = value
    return tuple(positional), named


def _find_argument(
    site: InputSite, positional: list[Any], named: dict[str, Any]
) -> tuple[Any, Any]:
    if site.index is None and site.name is None:
        for index, value in enumerate(positional):
            if isinstance(value, Tensor):
                return positional, index
        for name in (*site.order, *named):
            if isinstance(named.get(name), Tensor):
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
    def apply(value: Any) -> Any:
        if value is None:
            return None
        if not isinstance(value, Tensor):
            raise SessionError(_not_a_tensor(module, "output", site.target, value))
        for transform in transforms:
            value = transform(module, value)
        return value

    key = site.key
    if isinstance(output, Tensor):
        if key not in (None, 0):
            raise SessionError(_no_element(module, site, output))
        return apply(output)
    if isinstance(output, Mapping):
        return _replace_in_mapping(module, site, output, apply)
    if isinstance(output, (list, tuple)):
        index = 0 if key is None else key
        if not isinstance(index, int) and hasattr(output, "_fields") and index in output._fields:
            index = output._fields.index(index)
        if not isinstance(index, int) or index >= len(output):
            raise SessionError(_no_element(module, site, output))
        items = [apply(item) if at == index else item for at, item in enumerate(output)]
        if hasattr(output, "_make"):
            return output._make(items)
        return type(output)(items)
    raise SessionError(_no_element(module, site, output))


def _replace_in_mapping(
    module: nn.Module, site: OutputSite, output: Any, apply: Callable[[Any], Any]
) -> Any:
    key = _find_key(site.key, output)
    if key is None:
        nested = _find_nested(site.key, output)
        if nested is None:
            raise SessionError(_no_element(module, site, output))
        key, index = nested
        apply = _in_element(apply, index)

    if type(output) in (dict, OrderedDict):
        # Not copied: torch.compile gives an OrderedDict that was copied another order.
        items = [(name, apply(item) if name == key else item) for name, item in output.items()]
        return type(output)(items)
    if dataclasses.is_dataclass(type(output)):
        # A ModelOutput is a dictionary that is a dataclass: rebuilt from its own fields, it keeps
        # its type and its attributes, and the caller's object is not modified.
        return type(output)(**{**output, key: apply(output[key])})
    changed = copy.copy(output)
    changed[key] = apply(output[key])
    return changed


def _find_key(key: int | str | None, output: Mapping[Any, Any]) -> Any:
    # Addresses are text: `_output_0` may mean the key 0, the key "0", or the first of all.
    if key in output:
        return key
    if isinstance(key, str):
        return None
    if str(key) in output:
        return str(key)
    index = key or 0
    return list(output)[index] if index < len(output) else None


def _in_element(apply: Callable[[Any], Any], index: int) -> Callable[[Any], Any]:
    def change(value: Any) -> Any:
        items = [apply(item) if at == index else item for at, item in enumerate(value)]
        return type(value)(items)

    return change


def _find_nested(key: int | str | None, output: Mapping[Any, Any]) -> tuple[str, int] | None:
    # `_output_hidden_states_3`: element 3 of the tuple that a transformer returns as hidden_states.
    if not isinstance(key, str):
        return None
    name, _, index = key.rpartition("_")
    found = output.get(name)
    if not index.isdecimal() or not isinstance(found, (list, tuple)) or int(index) >= len(found):
        return None
    return name, int(index)


def _not_a_tensor(module: nn.Module, side: str, target: str, value: object) -> str:
    return (
        f"{side} target {target!r} of a {type(module).__name__} is a {type(value).__name__}, not a "
        f"tensor; address a tensor, or leave this target out"
    )


def _no_element(module: nn.Module, site: OutputSite, output: object) -> str:
    if isinstance(output, Mapping):
        has = f"a {type(output).__name__} with the keys {', '.join(map(str, output))}"
    elif isinstance(output, (list, tuple)):
        has = f"a {type(output).__name__} of {len(output)}"
    else:
        has = f"one {type(output).__name__}"
    return f"a {type(module).__name__} has no output {site.target!r}: it returned {has}"
