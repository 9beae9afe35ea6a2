"""Writes into a shown tensor that could not be passed on: noted when seen, refused later."""

from __future__ import annotations

from collections.abc import Iterable

import attrs
from torch import nn

from tersely.errors import SessionError
from tersely.instrument.names import INSTRUMENTS, LOST, full_name


@attrs.define(eq=False)
class Version:
    """The version of a tensor and its views if nothing wrote into them; our own writes advance it.

    Most tensors begin with version 0, have no view and are not written: they need none.

    Attributes:
        number: the version.
    """

    number: int = 0


def note_lost_write(module: nn.Module, name: str) -> None:
    """Remember that what a target shows was written into.

    Args:
        module: the module.
        name: the parameter or buffer.
    """
    if INSTRUMENTS in module.__dict__:
        module.__dict__[LOST] = name


def need_no_lost_write(module: nn.Module) -> None:
    """Raise an error for a lost write; once, so that the user can write again and continue.

    Args:
        module: an instrumented module.

    Raises:
        SessionError: a function wrote into a tensor that a target showed.
    """
    name = module.__dict__.pop(LOST, None)
    if name is not None:
        full = full_name(module, name)
        raise SessionError(
            f"{full} was written into by a function that takes a tensor to write into, such as "
            "torch.clamp_(weight, ...) or out=weight; the weight of a target is a computed value, "
            "so the parameter has not changed. Call the tensor's own method, weight.clamp_(...), "
            f"or write into dict(model.named_parameters())[{full!r}]",
            target=full,
        )


def need_no_lost_writes(modules: Iterable[nn.Module]) -> None:
    """Raise an error for a lost write into one of several modules.

    Args:
        modules: instrumented modules.

    Raises:
        SessionError: a function wrote into a tensor that a target showed.
    """
    for module in modules:
        if LOST in module.__dict__:
            need_no_lost_write(module)
