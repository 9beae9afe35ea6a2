"""Assigning to the attributes of an instrumented module, and deleting them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import attrs
from torch import nn

from tersely.errors import SessionError
from tersely.instrument.names import INSTRUMENTS, KEPT, full_name
from tersely.instrument.shown.tensor_class import Shown, WatchedShown, raw_parameter


@attrs.define(eq=False)
class Kept:
    """The parameters that a module has shown, to put one back that is taken out afterwards.

    Mutable, because it learns with each read. Copies of the module read for themselves.

    Attributes:
        order: the names of the module's parameters, in order, when one was read.
        parameters: target -> its parameter.
    """

    order: tuple[str, ...] = ()
    parameters: dict[str, nn.Parameter] = attrs.field(factory=dict)

    def __deepcopy__(self, memo: dict[int, Any]) -> Kept:
        return Kept()

    def __reduce__(self) -> tuple[type[Kept], tuple[()]]:
        return (Kept, ())


def keep(module: nn.Module, name: str) -> None:
    """Remember a parameter that is shown: who reparametrizes a layer reads it first.

    Args:
        module: an instrumented module.
        name: the target.
    """
    kept: Kept | None = module.__dict__.get(KEPT)
    if kept is None:
        kept = module.__dict__[KEPT] = Kept()
    parameter = module._parameters.get(name)
    if parameter is not None and kept.parameters.get(name) is not parameter:
        kept.order = tuple(module._parameters)
        kept.parameters[name] = parameter


def _need_all(module: nn.Module, name: str) -> None:
    """Put a target back that was taken out, and refuse what takes its place.

    Raises:
        SessionError: a target is no longer a parameter or buffer of the module.
    """
    instruments = module.__dict__.get(INSTRUMENTS)
    kept: Kept | None = module.__dict__.get(KEPT)
    if instruments is None or kept is None:
        return
    held = module._parameters
    gone = [one for one in kept.parameters if one not in held and one in instruments.parameters]
    if not gone or name in gone:
        return
    held.update({one: kept.parameters[one] for one in gone})
    # The order that named_parameters() and the state of optimizers have.
    for one in (*kept.order, *[one for one in held if one not in kept.order]):
        if one in held:
            held[one] = held.pop(one)
    raise _gone(module, gone[0])


def _gone(module: nn.Module, name: str) -> SessionError:
    name = full_name(module, name)
    return SessionError(
        f"{name} cannot be deleted while a session is attached, as reparametrizations "
        "(weight_norm, spectral_norm, register_parametrization) and FullyShardedDataParallel do; "
        "reparametrize before tersely.attach() or after session.detach(), and shard with "
        "fully_shard()",
        target=name,
    )


def register(made: Any) -> Callable[..., None]:
    """Return an instrumented class's ``register_parameter``.

    Args:
        made: the instrumented class.
    """

    def register_parameter(self: nn.Module, name: str, param: nn.Parameter | None) -> None:
        _need_all(self, name)
        super(made, self).register_parameter(name, param)

    return register_parameter


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
        kept: Kept | None = self.__dict__.get(KEPT)
        if kept is not None and name in kept.parameters:
            if name not in self._parameters and not isinstance(value, nn.Parameter):
                _need_all(self, "")
            del kept.parameters[name]
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
            raise _gone(self, name)
        super(made, self).__delattr__(name)

    return delete_attribute
