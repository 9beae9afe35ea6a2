"""Showing a parameter: the methods of tensors that write, view or reshape act on the parameter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tersely.errors import SessionError
from tersely.instrument.names import full_name
from tersely.instrument.shown import tensor_methods
from tersely.instrument.shown.sources import Step, merged
from tersely.instrument.shown.tensor_class import (
    Shown,
    alias,
    let_go,
    raw_parameter,
    refresh,
    settle,
    watch,
)


def show(module: nn.Module, name: str, value: Tensor) -> None:
    """Let the writes into a computed tensor act on its parameter.

    Args:
        module: the instrumented module.
        name: the parameter or buffer.
        value: what was computed of it just now; it gets another class.
    """
    watch(value)
    value._tersely_of = (module, name)  # type: ignore[attr-defined]  # of its class since now


def _writing(name: str) -> Callable[..., Any]:
    original = getattr(Tensor, name)
    is_operator = name.startswith("__i")

    def write(self: Shown, *args: Any, **kwargs: Any) -> Any:
        raw = raw_parameter(self)
        original(raw, *args, **kwargs)
        refresh(self)
        # ``layer.weight += 1`` assigns the result, and a module only accepts a parameter.
        return raw if is_operator and not self._tersely_steps else self

    return write


def _copying(self: Shown, value: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    raw = raw_parameter(self)
    if not torch.is_grad_enabled() or not value.requires_grad:
        value = merged(Tensor.detach(self), value, raw.detach())
    raw.copy_(value, *args, **kwargs)
    refresh(self)
    return self


def _setting(self: Shown, index: Any, value: Any) -> None:
    raw_parameter(self)[index] = value
    refresh(self)


def _is_view_of(result: object, shown: Shown) -> bool:
    if type(result) is not Tensor:
        return False
    if result.is_inference():
        return bool(result.untyped_storage()._cdata == shown.untyped_storage()._cdata)
    return result._is_view()


def _viewing(name: str) -> Callable[..., Any]:
    original = getattr(Tensor, name)

    def view(self: Shown, *args: Any, **kwargs: Any) -> Any:
        result = original(self, *args, **kwargs)
        if isinstance(result, (tuple, list)):
            return type(result)(
                alias(self, one, Step(name, args, kwargs, index)) if _is_view_of(one, self) else one
                for index, one in enumerate(result)
            )
        if not _is_view_of(result, self):
            return result
        return alias(self, result, Step(name, args, kwargs))

    return view


def _viewing_attribute(name: str) -> property:
    attribute: Any = getattr(Tensor, name)

    def view(self: Shown) -> Tensor:
        result: Tensor = attribute.__get__(self)
        return alias(self, result, Step(name)) if _is_view_of(result, self) else result

    return property(view)


def _reshaping(name: str) -> Callable[..., Any]:
    original = getattr(Tensor, name)

    def reshape(self: Shown, *args: Any, **kwargs: Any) -> Tensor:
        if not self._tersely_steps:
            module, parameter = self._tersely_of
            raise SessionError(
                f"{full_name(module, parameter)}.{name}() would give the parameter another shape "
                "or memory while a session is attached; do it before tersely.attach()",
                target=full_name(module, parameter),
            )
        # Of an alias it changes the alias alone, with plain tensors too.
        original(self, *args, **kwargs)
        if name in tensor_methods.VIEWS_IN_PLACE:
            self._tersely_steps = (*self._tersely_steps, Step(name[:-1], args, kwargs))
            settle(self)
        else:
            let_go(self, Tensor)
        return self

    return reshape


def _complete(cls: Any) -> None:
    """Give the class every method of tensors that writes, views or reshapes."""
    for name in (*tensor_methods.writes(), *tensor_methods.OPERATORS):
        setattr(cls, name, _writing(name))
    for name in (*tensor_methods.VIEWS_IN_PLACE, *tensor_methods.RESIZES):
        setattr(cls, name, _reshaping(name))
    for name in tensor_methods.VIEWS:
        setattr(cls, name, _viewing(name))
    for name in tensor_methods.VIEW_ATTRIBUTES:
        setattr(cls, name, _viewing_attribute(name))
    cls.copy_ = _copying
    cls.__setitem__ = _setting


_complete(Shown)
