"""Inputs of other sizes than the example's, such as a longer sequence, that the model also accepts.

A number that forward computes from the size of its input is a literal in the example's program.
Only another size distinguishes it from a constant of forward.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten

from tersely.shrinking.graph.program import evaluating
from tersely.shrinking.graph.twin import twin_of
from tersely.shrinking.proving.inputs import Inputs

_LARGEST = 1 << 18
"""The most elements of an input that is made larger than the example's."""

_LARGEST_COPY = 1 << 30
"""The most bytes of a model that is copied from an accelerator to the CPU."""

Place = tuple[int, int]
"""A tensor among the leaves of the inputs, and one of its dimensions."""


def of_another_size(model: nn.Module, example: Inputs) -> Inputs | None:
    """Return an example in which every dynamic dimension has another size.

    Dimensions of one size are changed together if the model accepts that, such as the lengths of
    tokens and of their mask, and otherwise those with one index. The values are the example's,
    repeated.

    Args:
        model: the model; a copy that shares its weights is run.
        example: arguments and keyword arguments of the model.

    Returns:
        None if the model accepts none of the sizes tried.
    """
    leaves, structure = tree_flatten((tuple(example[0]), dict(example[1])))
    twin = _apart(model)
    if twin is None:
        return None
    found, is_changed = leaves, False
    for size, places in _sizes(leaves):
        for together in _together(places):
            for other in _others(size):
                tried = [_resized(leaf, n, together, other) for n, leaf in enumerate(found)]
                if _is_small(tried, leaves) and _runs(twin, tree_unflatten(tried, structure)):
                    found, is_changed = tried, True
                    break
            else:
                continue
            if together == places:
                break
    changed: Inputs = tree_unflatten(found, structure)
    return changed if is_changed else None


def _apart(model: nn.Module) -> nn.Module | None:
    """Return a copy on which to try sizes, or None if it cannot be copied.

    It is on the CPU, where a lookup after the end of a table raises: on an accelerator, that may
    make the device unusable for the process.
    """
    tensors = [*model.parameters(), *model.buffers()]
    is_elsewhere = any(one.device.type != "cpu" for one in tensors)
    if is_elsewhere and sum(one.nbytes for one in tensors) > _LARGEST_COPY:
        return None
    try:
        twin = twin_of(model)
        return twin.cpu() if is_elsewhere else twin
    except Exception:  # the model's modules are the user's; the example alone is compared then
        return None


def _sizes(leaves: Sequence[object]) -> Iterator[tuple[int, list[Place]]]:
    """Yield each size and its dimensions, the largest first."""
    found: dict[int, list[Place]] = {}
    for number, leaf in enumerate(leaves):
        if isinstance(leaf, Tensor):
            for dim, size in enumerate(leaf.shape):
                found.setdefault(size, []).append((number, dim))
    found.pop(0, None)
    yield from sorted(found.items(), reverse=True)


def _together(places: list[Place]) -> Iterator[list[Place]]:
    yield places
    dims = sorted({dim for _, dim in places})
    if len(dims) > 1:
        for dim in dims:
            yield [place for place in places if place[1] == dim]


def _others(size: int) -> list[int]:
    """Return sizes to try until one works; longer ones reveal more."""
    shorter = dict.fromkeys((size // 2, size - 1))
    return [2 * size + 1, 2 * size, size + 1, *(one for one in shorter if one > 0)]


def _resized(leaf: object, number: int, places: Sequence[Place], size: int) -> object:
    if isinstance(leaf, Tensor):
        for dim in (dim for one, dim in places if one == number):
            places_of = torch.arange(size, device=leaf.device) % leaf.shape[dim]
            leaf = leaf.index_select(dim, places_of)
    return leaf


def _is_small(tried: Sequence[object], leaves: Sequence[object]) -> bool:
    pairs = zip(tried, leaves, strict=True)
    return all(
        one.numel() <= max(_LARGEST, before.numel())
        for one, before in pairs
        if isinstance(one, Tensor) and isinstance(before, Tensor)
    )


def _runs(model: nn.Module, inputs: Inputs) -> bool:
    args, kwargs = tree_map(lambda x: x.cpu() if isinstance(x, Tensor) else x, inputs)
    try:
        with (
            evaluating(model),
            torch.no_grad(),
            torch.random.fork_rng(devices=[]),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            model(*args, **kwargs)
    except Exception:  # the forward is the user's: an error is the answer
        return False
    return True


def describe_elsewhere(inputs: Inputs | None) -> str:
    """Return the text of a difference for inputs of other sizes.

    Args:
        inputs: those inputs.
    """
    shapes = [tuple(one.shape) for one in tree_leaves(inputs) if isinstance(one, Tensor)]
    return (
        "the small model's outputs differ from the masked model's with inputs of other sizes than "
        f"the example's, {', '.join(map(str, shapes))}, so nothing was removed: what forward "
        "computes follows the size of its input; please report the structure of this model"
    )
