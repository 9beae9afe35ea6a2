"""The inputs for which outputs are compared: the example, and random inputs like it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

Inputs = tuple[Sequence[Any], Mapping[str, Any]]


def compared_inputs(example: Inputs) -> tuple[Inputs, ...]:
    """Return an example, and random inputs like it if it has floating-point values.

    Args:
        example: arguments and keyword arguments.

    Returns:
        Only the example if it has no floating-point values, as with tokens.
    """
    if not any(_is_floating(one) for one in tree_leaves(example)):
        return (example,)
    return (example, random_inputs(example, seed=0))


def random_inputs(inputs: Inputs, *, seed: int) -> Inputs:
    """Return inputs like the example's with other floating-point values; integers stay.

    Args:
        inputs: arguments and keyword arguments.
        seed: the seed of the generator.
    """
    generator = torch.Generator().manual_seed(seed)

    def other(x: Any) -> Any:
        if not _is_floating(x):
            return x
        return torch.randn(x.shape, generator=generator).to(x.dtype).to(x.device)

    changed: Inputs = tree_map(other, inputs)
    return changed


def _is_floating(one: Any) -> bool:
    return isinstance(one, Tensor) and one.is_floating_point()
