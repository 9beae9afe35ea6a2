"""Dynamic dimensions, in the form that ``torch.export`` takes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from tersely.errors import ExportError

BATCH = "batch"

Ranges: TypeAlias = Mapping[str, Mapping[str, int]]
"""Name of a dimension -> its least and greatest length, as ``min`` and ``max``."""

_FIXES = "Suggested fixes:"
_RANGE = re.compile(r"(\w+) = Dim\('\1'((?:, (?:min|max)=\d+)+)\)")


def shapes_of(example_inputs: Any, dynamic_shapes: Any, *, ranges: Ranges | None = None) -> Any:
    """Return dynamic shapes as ``torch.export.export`` takes them.

    Args:
        example_inputs: a tensor, a tuple or list of arguments, or a mapping of keyword arguments.
        dynamic_shapes: None; the name ``batch`` for the first dimension of every tensor; names of
            the dimensions of each argument, such as ``{"tokens": ["batch", "time"]}`` with None
            for one that is fixed, equal names meaning equal lengths; or whatever ``torch.export``
            takes, for one tensor also its dimensions alone.
        ranges: the allowed lengths of named dimensions; any length by default.

    Raises:
        ExportError: they have another form.
    """
    if dynamic_shapes is None:
        return None
    if not isinstance(dynamic_shapes, (Mapping, list, tuple)) and dynamic_shapes != BATCH:
        raise ExportError(
            f"dynamic_shapes is {dynamic_shapes!r}; expected {BATCH!r}, or the names of the "
            'dimensions of each argument, such as {"tokens": ["batch", "time"]}'
        )
    made: dict[str, Any] = {
        name: torch.export.Dim(name, **limits) for name, limits in (ranges or {}).items()
    }
    if dynamic_shapes == BATCH:
        return _per_tensor(example_inputs, made.get(BATCH, torch.export.Dim(BATCH)))
    if isinstance(example_inputs, Tensor):
        if _is_of_one(dynamic_shapes):
            dynamic_shapes = (dynamic_shapes,)
        elif isinstance(dynamic_shapes, Mapping):
            return {key: _named(one, made) for key, one in dynamic_shapes.items()}
    if isinstance(dynamic_shapes, Mapping):
        return {key: _named(one, made) for key, one in dynamic_shapes.items()}
    return tuple(_named(one, made) for one in dynamic_shapes)


def ranges_of(message: str, dynamic_shapes: Any) -> Ranges | None:
    """Return the lengths of named dimensions that an error of ``torch.export`` states.

    Args:
        message: the error's text.
        dynamic_shapes: as `shapes_of` takes them.

    Returns:
        None if it states something else, such as that a dimension is fixed or that an unnamed one
        is too long.
    """
    _, _, fixes = message.partition(_FIXES)
    lines = [line.strip() for line in fixes.partition("\n\n")[0].splitlines() if line.strip()]
    found = [_RANGE.fullmatch(line) for line in lines]
    ranges = {
        one[1]: {key: int(value) for key, value in re.findall(r"(min|max)=(\d+)", one[2])}
        for one in found
        if one is not None
    }
    is_named = {*ranges} <= {*_names(dynamic_shapes)}
    return ranges if ranges and len(ranges) == len(lines) and is_named else None


def _names(dynamic_shapes: Any) -> Iterator[str]:
    if isinstance(dynamic_shapes, str):
        yield dynamic_shapes
    elif isinstance(dynamic_shapes, Mapping):
        for one in dynamic_shapes.values():
            yield from _names(one)
    elif isinstance(dynamic_shapes, Sequence):
        for one in dynamic_shapes:
            yield from _names(one)


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
