"""Copies of instrumented modules whose class says itself how it is copied."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from torch import nn

from tersely.instrument.names import INSTRUMENTS

WAYS = ("__copy__", "__deepcopy__")
"""The methods by which a class says so; ``torch.nn.utils.parametrize`` gives layers the second."""


def make_of_class(cls: type[nn.Module]) -> Callable[..., nn.Module]:
    """Return an instrumented class's ``__new__``, which makes modules of the user's class.

    ``type(module)(...)`` and the slice of a container make modules that are not targets, and
    ``cls.__new__(cls)`` makes an empty one, which a copy fills.

    Args:
        cls: the user's class.
    """

    def new(made: type[nn.Module], *args: Any, **kwargs: Any) -> nn.Module:
        if not args and not kwargs and _needs_arguments(cls):
            return cls.__new__(cls)
        return cls(*args, **kwargs)

    return new


def _needs_arguments(cls: type[nn.Module]) -> bool:
    try:
        inspect.signature(cls.__init__).bind(None)
    except TypeError:
        return True
    return False


def copied(made: Any, way: str) -> Callable[..., nn.Module]:
    """Return an instrumented class's own way to copy, which instruments what it has filled.

    Args:
        made: the instrumented class.
        way: one of `WAYS`.
    """
    (cls,) = made.__bases__

    def copy_module(self: nn.Module, *memo: Any) -> nn.Module:
        result: nn.Module = getattr(super(made, self), way)(*memo)
        # An object that its class has created anew has none.
        if type(result) is cls and INSTRUMENTS in result.__dict__:
            result.__class__ = made
        return result

    return copy_module
