"""Assigning to the attributes of an instrumented module, and deleting them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from torch import nn

from tersely.errors import SessionError
from tersely.instrument.names import INSTRUMENTS, full_name
from tersely.instrument.shown.tensor_class import Shown, WatchedShown, raw_parameter


def assign(made: Any) -> Callable[..., None]:
    """Return an instrumented class's ``__setattr__``.

    What another target shows ties a parameter to that target's, as in the dense model.

    Args:
        made: the instrumented class.
    """

    def set_attribute(self: nn.Module, name: str, value: Any) -> None:
        if type(value) in (Shown, WatchedShown) and name in self._parameters:
            shown = cast("Shown", value)
            if not shown._tersely_steps:
                value = raw_parameter(shown)
        super(made, self).__setattr__(name, value)

    return set_attribute


def delete(made: Any) -> Callable[..., None]:
    """Return an instrumented class's ``__delattr__``.

    Args:
        made: the instrumented class.
    """

    def delete_attribute(self: nn.Module, name: str) -> None:
        instruments = self.__dict__.get(INSTRUMENTS)
        if instruments is not None and name in instruments.parameters:
            raise SessionError(
                f"{full_name(self, name)} is to be deleted while a session is attached to it, as "
                f"reparametrizations do; put them on before tersely.attach(), or after "
                f"session.detach()",
                target=full_name(self, name),
            )
        super(made, self).__delattr__(name)

    return delete_attribute
