"""How a model is called with example inputs or a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any


def call_model(model: Callable[..., object], batch: Any) -> object:
    """Call a model with a batch: a mapping as keywords, a list or tuple as arguments.

    Args:
        model: the model, or a function that calls it.
        batch: a tensor, a list or tuple, or a mapping.
    """
    args, kwargs = call_arguments(batch)
    return model(*args, **kwargs)


def call_arguments(batch: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return example inputs or a batch as positional and keyword arguments.

    Args:
        batch: a tensor, a list or tuple of arguments, or a mapping of keyword arguments.
    """
    if isinstance(batch, Mapping):
        return (), dict(batch)
    if isinstance(batch, (list, tuple)):
        return tuple(batch), {}
    return (batch,), {}
