"""How a model is called with example inputs or a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any


def call_model(model: Callable[..., object], batch: Any) -> object:
    """Call a model with a batch: a mapping as keywords, a list or tuple as arguments.

    Args:
        model: the model to call, or what calls it.
        batch: a tensor, a list or tuple, or a mapping.
    """
    if isinstance(batch, Mapping):
        return model(**batch)
    if isinstance(batch, (list, tuple)):
        return model(*batch)
    return model(batch)
