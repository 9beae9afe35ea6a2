"""Builds the models that cases describe: modules by name, type and parameters.

A type is a class of ``torch.nn``, a stock module below, or a new class of that name.
"""

from __future__ import annotations

import sys
from collections import namedtuple
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

Description = Mapping[str, Any]


class Sum(nn.Module):
    def forward(self, x, y=None):
        return x if y is None else x + y


class Gather(nn.Module):
    def forward(self, *parts):
        return list(parts)


class Scale(nn.Module):
    def forward(self, factor, x):
        return factor * x


class Shift(nn.Module):
    def forward(self, x, offset=torch.tensor([[2.0, 4.0]])):  # noqa: B008  # a tensor as default
        return x + offset


class Split(nn.Module):
    def forward(self, x):
        return x, -x


Pair = namedtuple("Pair", ["positive", "negative"])


class SplitNamed(nn.Module):
    def forward(self, x):
        return Pair(x, -x)


class Named(nn.Module):
    def forward(self, x):
        return {"logits": x, "hidden": -x}


class Nested(nn.Module):
    def forward(self, x):
        return {"p2": {"cls": x, "box": [x, -x]}, "p3": (x,)}


STOCK = {cls.__name__: cls for cls in (Sum, Gather, Scale, Shift, Split, SplitNamed, Named, Nested)}


def build(description: Description, *, device: str | None = None) -> nn.Module:
    """Return the model; parameters given by shape alone are filled with 1, 2, 3, ..."""
    made: dict[str, nn.Module] = {}
    root = _new_class(description.get("type", "Net"), nn.Module)()
    for item in description["modules"]:
        name = item["name"]
        module = made[item["shared_with"]] if "shared_with" in item else build_module(item)
        made[name] = module
        parent, _, attribute = name.rpartition(".")
        _find(root, parent).add_module(attribute, module)
    for first, *others in description.get("tied", ()):
        owner, attribute = _owner(root, first)
        for other in others:
            holder, its_attribute = _owner(root, other)
            setattr(holder, its_attribute, getattr(owner, attribute))
    return root if device is None else root.to(device)


def build_module(item: Description) -> nn.Module:
    type_name = item["type"]
    parameters = item.get("parameters", {})
    if "extends" in item:
        module = _torch_module(item["extends"], parameters, item)
        module.__class__ = _new_class(type_name, type(module))
    elif type_name in STOCK:
        module = STOCK[type_name]()
    elif hasattr(nn, type_name):
        module = _torch_module(type_name, parameters, item)
    else:
        package, _, class_name = type_name.rpartition(".")
        module = _new_class(class_name, nn.Module, package)()
        for name, value in parameters.items():
            module.register_parameter(name, nn.Parameter(tensor_of(value)))
        for name, value in item.get("buffers", {}).items():
            module.register_buffer(name, tensor_of(value))
    with torch.no_grad():
        for name, value in parameters.items():
            if value is not None and name in module._parameters:
                module._parameters[name].copy_(tensor_of(value))
    return module


def tensor_of(value: Description) -> Tensor:
    """Return a tensor given by its values, or by its shape: then it counts 1, 2, 3, ..."""
    if "values" in value:
        return torch.tensor(nested(value["values"]), dtype=torch.float32)
    if value.get("dtype") == "int64":
        return torch.zeros(value["shape"], dtype=torch.int64)
    count = torch.Size(value["shape"]).numel()
    return torch.arange(1, count + 1, dtype=torch.float32).reshape(value["shape"])


def nested(value: Any) -> Any:
    """Return nested lists with the texts "nan" and "inf" as the numbers they stand for."""
    if isinstance(value, list):
        return [nested(one) for one in value]
    return float(value) if isinstance(value, str) else value


def _torch_module(type_name: str, parameters: Description, item: Description) -> nn.Module:
    shapes = {
        name: () if value is None else tuple(tensor_of(value).shape)
        for name, value in parameters.items()
    }
    arguments, keywords = _arguments(type_name, shapes, item.get("groups", 1))
    if type_name.startswith(("Linear", "Conv")):
        keywords["bias"] = parameters.get("bias") is not None
    return getattr(nn, type_name)(*arguments, **keywords)


def _arguments(
    type_name: str, shapes: Mapping[str, tuple[int, ...]], groups: int
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    weight = shapes.get("weight", ())
    keywords: dict[str, Any] = {}
    arguments: tuple[Any, ...] = ()
    if type_name == "Linear":
        arguments = (weight[1], weight[0])
    elif type_name.startswith("Conv"):
        inputs, outputs = weight[1] * groups, weight[0]
        if "Transpose" in type_name:
            inputs, outputs = outputs, inputs
        arguments, keywords = (inputs, outputs, weight[2:]), {"groups": groups}
    elif type_name.startswith("InstanceNorm"):
        arguments, keywords = weight, {"affine": True}
    elif type_name == "GroupNorm":
        arguments = (1, *weight)
    elif type_name == "MultiheadAttention":
        arguments = (shapes["in_proj_weight"][1], 1)
    elif type_name in ("LSTM", "GRU"):
        arguments = (shapes["weight_ih_l0"][1], shapes["weight_hh_l0"][1])
    elif "Pool" in type_name:
        arguments = (1,)
    elif type_name == "Embedding" or "Norm" in type_name:
        arguments = weight
    return arguments, keywords


def _new_class(name: str, base: type[nn.Module], package: str = "") -> type[nn.Module]:
    cls = type(name, (base,), {"__module__": package or __name__})
    if base is nn.Module:
        cls.forward = lambda self, x: x
    if package:
        sys.modules.setdefault(package, ModuleType(package))
    return cls


def _find(root: nn.Module, name: str) -> nn.Module:
    return root.get_submodule(name) if name else root


def _owner(root: nn.Module, full_name: str) -> tuple[nn.Module, str]:
    module, _, attribute = full_name.rpartition(".")
    return _find(root, module), attribute
