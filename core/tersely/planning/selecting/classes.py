"""Module classes as users know them, beneath the classes that instrumentation and sharding make.

Nothing here remembers a class: those of a notebook's cells come and go.
"""

from __future__ import annotations

import sys

from torch import nn

RESERVED = "_tersely_"
"""How every attribute that tersely adds to a user's module or class begins."""

ORIGINAL = RESERVED + "original_class"
"""Class attribute of every class made on the fly: the user's own class."""


def original_class(cls: type[nn.Module]) -> type[nn.Module]:
    """Return the class the user wrote, for one made by tersely, sharding or parametrization.

    Args:
        cls: the class of a module as it is now.
    """
    while True:
        if ORIGINAL in cls.__dict__:
            cls = cls.__dict__[ORIGINAL]
        elif _is_sharded_class(cls):
            # FSDP2 makes FSDPLinear(FSDPModule, Linear) and assigns it to the module.
            cls = cls.__bases__[1]
        elif _is_parametrized_class(cls):
            cls = cls.__bases__[0]
        else:
            return cls


def _is_parametrized_class(cls: type) -> bool:
    # torch.nn.utils.parametrize makes ParametrizedLinear(Linear) and assigns it to the module.
    bases = cls.__bases__
    return (
        len(bases) == 1
        and cls.__module__ == "torch.nn.utils.parametrize"
        and cls.__name__ == f"Parametrized{bases[0].__name__}"
    )


def _is_sharded_class(cls: type) -> bool:
    bases = cls.__bases__
    return (
        len(bases) == 2  # noqa: PLR2004  # the mixin and the user's class
        and bases[0].__name__ == "FSDPModule"
        and bases[0].__module__.startswith("torch.distributed")
    )


def is_type(cls: type[nn.Module], name: str) -> bool:
    """Tell whether a class is meant by a type name of the document (rule S4).

    Args:
        cls: the user's class.
        name: a class name, or a dotted path under which the class can be found.
    """
    if "." not in name:
        return cls.__name__ == name
    if f"{cls.__module__}.{cls.__qualname__}" == name:
        return True
    # The public path (torch.nn.Linear) differs from where the class was defined
    # (torch.nn.modules.linear.Linear). What is not imported cannot be the class of a module.
    package, _, attribute = name.rpartition(".")
    return getattr(sys.modules.get(package), attribute, None) is cls
