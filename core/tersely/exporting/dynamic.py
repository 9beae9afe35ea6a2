"""Dimensions that may differ from call to call, in the form that ``torch.export`` takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

BATCH = "batch"


def shapes_of(example_inputs: Any, dynamic_shapes: Any) -> Any:
    """Return dynamic shapes as ``torch.export.export`` takes them.

    Args:
        example_inputs: a tensor, a tuple or list of arguments, or a mapping of keyword arguments.
        dynamic_shapes: None; the name ``batch`` for the first dimension of every tensor; names of
            the dimensions of each argument, such as ``{"tokens": ["batch", "time"]}`` with None
            for one that is fixed, equal names meaning equal lengths; or whatever ``torch.export``
            takes, for one tensor also its dimensions alone.
    """
    if dynamic_shapes is None:
        return None
    if dynamic_shapes == BATCH:
        first = torch.export.Dim(BATCH)
        return _per_tensor(example_inputs, first)
    made: dict[str, Any] = {}
    if isinstance(example_inputs, Tensor):
        if _is_of_one(dynamic_shapes):
            dynamic_shapes = (dynamic_shapes,)
        elif isinstance(dynamic_shapes, Mapping):
            return {key: _named(one, made) for key, one in dynamic_shapes.items()}
    if isinstance(dynamic_shapes, Mapping):
        return {key: _named(one, made) for key, one in dynamic_shapes.items()}
    return tuple(_named(one, made) for one in dynamic_shapes)


def _is_of_one(dynamic_shapes: Any) -> bool:
    if isinstance(dynamic_shapes, Mapping):
        return all(isinstance(one, int) for one in dynamic_shapes)
    return isinstance(dynamic_shapes, (list, tuple)) and all(
        one is None or isinstance(one, (str, torch.export.Dim)) for one in dynamic_shapes
    )


def _named(dimensions: Any, made: dict[str, Any]) -> Any:
    def dimension(one: Any) -> Any:
        if not isinstance(one, str):
            return one
        return made.setdefault(one, torch.export.Dim(one))

    if isinstance(dimensions, Mapping):
        return {key: dimension(one) for key, one in dimensions.items()}
    if isinstance(dimensions, Sequence) and not isinstance(dimensions, str):
        return {place: dimension(one) for place, one in enumerate(dimensions) if one is not None}
    return dimensions


def _per_tensor(value: Any, first: Any) -> Any:
    if isinstance(value, Tensor):
        return ({0: first},)
    if isinstance(value, Mapping):
        return {key: _of_value(one, first) for key, one in value.items()}
    return tuple(_of_value(one, first) for one in value)


def _of_value(value: Any, first: Any) -> Any:
    if isinstance(value, Tensor):
        return {0: first} if value.ndim else None
    if isinstance(value, (list, tuple)):
        return type(value)(_of_value(one, first) for one in value)
    if isinstance(value, Mapping):
        return {key: _of_value(one, first) for key, one in value.items()}
    return None
