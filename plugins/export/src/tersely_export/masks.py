"""Masks of inputs and outputs, which files of tensors cannot hold."""

from __future__ import annotations

from collections.abc import Iterator

import tersely

_REASON = (
    "it is masked in each call, which a file of tensors cannot hold; call session.shrink(), "
    "which removes masked channels, or export to onnx or pt2"
)


def refused_masks(source: tersely.ExportSource) -> Iterator[tersely.Refusal]:
    """Yield the masked inputs and outputs, which the model's own class would not mask.

    Args:
        source: the session.
    """
    return (tersely.Refusal(_REASON, name) for name in source.masked_activations)
