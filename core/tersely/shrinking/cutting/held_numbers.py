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


def can_write_held(module: nn.Module, name: str) -> bool:
    """Tell whether the object of a number can be copied, as an enum or a logger cannot.

    Args:
        module: the module.
        name: as in `held_numbers`.
    """
    return _copied(getattr(module, name.partition(".")[0])) is not None


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

    Raises:
        TypeError: the object is not one that `can_write_held` takes.
    """
    attribute, _, key = name.partition(".")
    held = getattr(module, attribute)
    if vars(held)[key] == number:
        return
    own = _copied(held)
    if own is None:
        raise TypeError(f"{attribute} is an object that cannot be copied")
    vars(own)[key] = number  # setattr refuses where a dataclass is frozen
    for one in model.modules():
        for place in [place for place, value in vars(one).items() if value is held]:
            undoing.set_attribute(one, place, own)


def _copied(held: object) -> object | None:
    """Return a shallow copy that shares no attributes, or None where there is none."""
    try:
        own = copy.copy(held)
    except Exception:  # the object's own code, which may be anything
        return None
    is_apart = own is not held and vars(own) is not vars(held)
    return own if is_apart and vars(own).keys() == vars(held).keys() else None


def _is_plain(held: object) -> bool:
    return (
        hasattr(held, "__dict__")
        and not callable(held)
        and not isinstance(held, Tensor | ModuleType)
    )
