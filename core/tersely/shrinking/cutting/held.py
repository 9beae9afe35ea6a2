"""Whole numbers of objects that modules hold, such as the config of a transformer."""

from __future__ import annotations

import copy
from types import ModuleType

from torch import Tensor, nn

from tersely.shrinking.cutting.apply import Undoing


def held_numbers(module: nn.Module) -> dict[str, int]:
    """Return the whole numbers of objects that a module holds, by names as ``config.heads``.

    Args:
        module: the module.
    """
    return {
        f"{name}.{key}": number
        for name, held in vars(module).items()
        if _is_plain(held)
        for key, number in vars(held).items()
        if type(number) is int
    }


def write_held(
    model: nn.Module, module: nn.Module, name: str, number: int, undoing: Undoing
) -> None:
    """Change a number of an object that a module holds, for all modules of the model that hold it.

    They get a copy: the object may be that of another model, such as a teacher, too.

    Args:
        model: the model.
        module: one of its modules.
        name: as in `held_numbers`.
        number: the new value.
        undoing: remembers the object.
    """
    attribute, _, key = name.partition(".")
    held = getattr(module, attribute)
    if getattr(held, key) == number:
        return
    own = copy.copy(held)
    setattr(own, key, number)
    for one in model.modules():
        for place in [place for place, value in vars(one).items() if value is held]:
            undoing.set_attribute(one, place, own)


def _is_plain(held: object) -> bool:
    return (
        hasattr(held, "__dict__")
        and not callable(held)
        and not isinstance(held, Tensor | ModuleType)
    )
