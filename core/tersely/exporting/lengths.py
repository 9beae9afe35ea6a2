"""The lengths of dynamic dimensions in example inputs: equal for equal names, and never one.

``torch.export`` treats a length of one as constant, so an example with one row is repeated.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import attrs
import torch
from torch import Tensor

from tersely.errors import ExportError

_Place: TypeAlias = tuple[Any, ...]


@attrs.frozen(eq=False)
class _Length:
    """A dynamic dimension of a tensor.

    Attributes:
        name: its name; dimensions of one name have one length.
        place: the keys and indices of the tensor in the inputs.
        tensor: the tensor.
        dim: which of its dimensions.
    """

    name: str
    place: _Place
    tensor: Tensor
    dim: int

    @property
    def length(self) -> int:
        """Its length in the example."""
        return self.tensor.shape[self.dim]

    @property
    def where(self) -> str:
        """The text of the tensor's place."""
        keys = (f"[{key}]" if isinstance(key, int) else f".{key}" for key in self.place)
        return "".join(keys).removeprefix(".") or "the input"


def lengthened(example_inputs: Any, shapes: Any) -> Any:
    """Return example inputs whose dynamic dimensions are longer than one.

    Args:
        example_inputs: a tensor, a tuple or list of arguments, or a mapping of keyword arguments.
        shapes: their result of `shapes_of`.

    Returns:
        The same structure; tensors whose dimensions are long enough are the same objects.

    Raises:
        ExportError: dimensions of one name have different lengths.
    """
    if shapes is None:
        return example_inputs
    by_name: dict[str, list[_Length]] = {}
    for one in _lengths(example_inputs, _of_argument(example_inputs, shapes), ()):
        by_name.setdefault(one.name, []).append(one)
    # One tensor may be passed twice, with different dynamic dimensions.
    repeated: dict[_Place, set[int]] = {}
    for name, found in by_name.items():
        _need_alike(name, found)
        for one in found:
            if one.length == 1:
                repeated.setdefault(one.place, set()).add(one.dim % one.tensor.ndim)
    return _with_repeated(example_inputs, repeated, ())


def _of_argument(value: Any, shapes: Any) -> Any:
    # The shapes of a single tensor are in a tuple, or under its argument's name.
    if isinstance(value, Tensor) and len(shapes) == 1:
        return next(iter(shapes.values() if isinstance(shapes, Mapping) else shapes))
    return shapes


def _lengths(value: Any, shapes: Any, place: _Place) -> Iterator[_Length]:
    if isinstance(value, Tensor):
        pairs = shapes.items() if isinstance(shapes, Mapping) else enumerate(shapes or ())
        for dim, one in pairs:
            if isinstance(one, torch.export.Dim) and -value.ndim <= dim < value.ndim:
                yield _Length(one.__name__, place, value, dim)
    elif isinstance(value, Mapping) and isinstance(shapes, Mapping):
        for key, one in value.items():
            yield from _lengths(one, shapes.get(key), (*place, key))
    elif isinstance(value, (list, tuple)) and isinstance(shapes, Sequence):
        for index, (one, inner) in enumerate(zip(value, shapes, strict=False)):
            yield from _lengths(one, inner, (*place, index))


def _need_alike(name: str, found: Sequence[_Length]) -> None:
    other = next((one for one in found if one.length != found[0].length), None)
    if other is not None:
        raise ExportError(
            f"dynamic_shapes has the dimension {name!r} in {found[0].where}, where it is "
            f"{found[0].length} long, and in {other.where}, where it is {other.length}; give it "
            "one length in the example inputs, or name the dimensions of each input apart"
        )


def _with_repeated(value: Any, repeated: Mapping[_Place, set[int]], place: _Place) -> Any:
    """Return inputs with some tensors repeated; containers without them are the same objects."""
    if isinstance(value, Tensor):
        for dim in sorted(repeated.get(place, ())):
            value = torch.cat([value, value], dim)
        return value
    if not isinstance(value, (Mapping, list, tuple)):
        return value
    keys = value if isinstance(value, Mapping) else range(len(value))
    found = {key: _with_repeated(value[key], repeated, (*place, key)) for key in keys}
    if all(found[key] is value[key] for key in found):
        return value
    if isinstance(value, Mapping):
        changed = copy.copy(value) if isinstance(value, dict) else {}
        for key, one in found.items():
            changed[key] = one
        return changed
    is_named = hasattr(value, "_fields")
    return type(value)(*found.values()) if is_named else type(value)(found.values())
