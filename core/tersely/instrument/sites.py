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
from tersely.instrument.tapping import Tap
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
        place: Any
        key: Any
        place, key = _find_argument(site, positional, named)
        if key is None:
            continue
        value = place[key]
        if value is None:
            continue  # an optional input that this call leaves out
        if (
            isinstance(value, Mapping)
            and (inner := _key_of_tensor(module, site, value)) is not None
        ):
            # The caller's mapping is not modified.
            place[key] = place = copy.copy(value)
            key, value = inner, value[inner]
        if not isinstance(value, Tensor):
            raise SessionError(_not_a_tensor(module, "input", site.target, value))
        for transform in transforms:
            value = transform(module, value)
        place[key] = value
    return tuple(positional), named


def _key_of_tensor(
    module: nn.Module, site: InputSite | OutputSite, mapping: Mapping[Any, Any]
) -> Any:
    """Return the key of the one tensor that a mapping holds, or None without any (rule T8.1)."""
    keys = [key for key, value in mapping.items() if isinstance(value, Tensor)]
    if len(keys) > 1:
        raise SessionError(_several_tensors(module, site, keys))
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
    def apply(value: Any) -> Any:
        if value is None:
            return None
        if not isinstance(value, Tensor):
            raise SessionError(_not_a_tensor(module, "output", site.target, value))
        for transform in transforms:
            value = transform(module, value)
        return value

    key = site.key
    fields = output if isinstance(output, Mapping) else _fields_of(output)
    if (
        fields is not None
        and _is_unnamed(key, fields)
        and all(isinstance(one, Tap) for one in transforms)
    ):
        # A tap never disturbs a forward: it reports what it could not remember with the loss.
        tensors = [name for name, value in fields.items() if isinstance(value, Tensor)]
        if len(tensors) > 1:
            for tap in transforms:
                tap.refuse(_several_tensors(module, site, tensors))  # type: ignore[attr-defined]
            return output
    if isinstance(output, Tensor):
        if key not in (None, 0):
            raise SessionError(_no_element(module, site, output))
        return apply(output)
    if isinstance(output, Mapping):
        return _replace_in_mapping(module, site, output, apply)
    if fields is not None:
        return dataclasses.replace(output, **_replace_in_mapping(module, site, fields, apply))
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


def _is_unnamed(key: int | str | None, fields: Mapping[Any, Any]) -> bool:
    return not key and key not in fields and str(key) not in fields


def _fields_of(output: Any) -> dict[str, Any] | None:
    """Return the fields of a plain dataclass, or None for anything else."""
    if isinstance(output, type) or not dataclasses.is_dataclass(output):
        return None
    return {field.name: getattr(output, field.name) for field in dataclasses.fields(output)}


def _replace_in_mapping(
    module: nn.Module, site: OutputSite, output: Any, apply: Callable[[Any], Any]
) -> Any:
    key = _find_key(module, site, output)
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


def _find_key(module: nn.Module, site: OutputSite, output: Mapping[Any, Any]) -> Any:
    # Addresses are text: `_output_1` may mean the key 1, the key "1", or the second of all.
    key = site.key
    if key in output:
        return key
    if isinstance(key, str):
        return None
    if str(key) in output:
        return str(key)
    if not key:
        return _key_of_tensor(module, site, output)
    return list(output)[key] if key < len(output) else None


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


def _several_tensors(module: nn.Module, site: InputSite | OutputSite, keys: list[Any]) -> str:
    side, what_to_do = "input", "target the input of a module that is called with a tensor"
    if isinstance(site, OutputSite):
        side, what_to_do = "output", f"write the key, as in _output_{keys[0]}"
    return (
        f"{side} target {site.target!r} of a {type(module).__name__} is a mapping with several "
        f"tensors: {', '.join(map(str, keys))}; {what_to_do}"
    )


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
