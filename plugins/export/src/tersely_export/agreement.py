"""How well the outputs of another runtime agree with those of the session."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree

import tersely


def tensors_of(outputs: Any) -> list[Tensor]:
    """Return the tensors of a model's outputs, in order.

    Args:
        outputs: a tensor, or lists, tuples and mappings of them.
    """
    return [one for one in _pytree.tree_leaves(outputs) if isinstance(one, Tensor)]


def compare(
    found: Sequence[Tensor],
    expected: Sequence[Tensor],
    *,
    least_cosine: float,
    cause: str = "",
) -> dict[str, float]:
    """Compare outputs, whole tensors at a time.

    A value that rounds the other way affects everything after it, so the largest difference says
    little; the cosine of the angle between both tells whether outputs are the same. It is computed
    from finite values; infinite values and NaN must be in the same places, except for a share of 1
    - ``least_cosine``.

    Args:
        found: the runtime's outputs.
        expected: the session's outputs.
        least_cosine: the least cosine between them.
        cause: a known reason for a difference, appended to the error.

    Returns:
        The smallest cosine, the largest and the mean difference of all outputs.

    Raises:
        ExportError: there are more or fewer outputs, of another shape, or too different.
    """
    shapes = [tuple(one.shape) for one in found], [tuple(one.shape) for one in expected]
    if shapes[0] != shapes[1]:
        raise tersely.ExportError(
            f"the runtime returned outputs of the shapes {shapes[0]}, the session of {shapes[1]}"
        )
    cosines, largest, means = [1.0], [0.0], [0.0]
    for one, other in zip(found, expected, strict=True):
        if not other.is_floating_point() or other.numel() == 0:
            continue
        first, second = one.double().flatten(), other.double().flatten()
        first, second = _finite(first, second, least_cosine=least_cosine)
        if first.numel() == 0:
            continue
        both = first.norm() * second.norm()
        cosines.append(float(first @ second / both) if float(both) else float(first.equal(second)))
        largest.append(float((first - second).abs().max()))
        means.append(float((first - second).abs().mean()))
    if min(cosines) < least_cosine:
        raise tersely.ExportError(
            "the outputs of the runtime differ from those that the session simulates: their cosine "
            f"is {min(cosines):.4f}, expected {least_cosine} or more; the largest difference is "
            f"{max(largest):.4g}{cause}"
        )
    return {
        "cosine": min(cosines),
        "largest_difference": max(largest),
        "mean_difference": max(means),
    }


def _finite(first: Tensor, second: Tensor, *, least_cosine: float) -> tuple[Tensor, Tensor]:
    """Return the finite values of both, if the others agree in all but a few places.

    Infinite values are valid outputs, such as masked scores, but have no cosine.
    """
    finite = first.isfinite() & second.isfinite()
    same = (first == second) | (first.isnan() & second.isnan())
    share = float((~finite & ~same).double().mean())
    if share and bool(second.isfinite().all()):
        raise tersely.ExportError("the runtime computed values that are not finite")
    # A mask that is computed from rounded values may differ in a few places.
    if share > 1 - least_cosine:
        raise tersely.ExportError(
            f"{share:.2%} of the values are infinite or NaN in the runtime or in the session alone"
        )
    return first[finite], second[finite]


def detached_inputs(example_inputs: Any) -> Any:
    """Return example inputs on the CPU, without gradients.

    Args:
        example_inputs: inputs of the model.
    """
    return _pytree.tree_map(
        lambda one: one.detach().cpu() if isinstance(one, torch.Tensor) else one, example_inputs
    )
