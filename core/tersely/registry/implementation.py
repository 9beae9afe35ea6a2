"""Imports the object of a descriptor, the only moment at which a plugin may import torch."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from tersely.errors import BrokenPluginError
from tersely.registry.collect import describe
from tersely.registry.kinds import Kind
from tersely.registry.one_file import is_module_of
from tersely.registry.record import Registration
from tersely.registry.trace import is_tracing, timed, traced
from tersely.text import nearest


def load_implementation(kind: Kind, registration: Registration) -> Callable[..., object]:
    """Import what a descriptor points to.

    Args:
        kind: the kind of thing, for messages.
        registration: the descriptor and who provides it.

    Returns:
        The class or function; Python's own module cache makes a second call cheap.

    Raises:
        BrokenPluginError: the module cannot be imported, or does not hold the object.
    """
    reference = registration.descriptor.implementation
    module_name, _, path = reference.partition(":")
    head = f"{kind.name} {registration.descriptor.name!r} of {registration.title} is broken"
    named = {
        "plugin": registration.descriptor.name,
        "distribution": registration.distribution,
    }
    own = registration.module
    try:
        is_own = own is not None and is_module_of(own, module_name)
        with timed(registration.qualified, kind.name, "import"):
            value: object = own if is_own else import_module(module_name)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # foreign code, which may even call sys.exit
        raise BrokenPluginError(
            f"{head}: importing {module_name} raised {describe(error)}; repair or reinstall "
            f"{registration.distribution}",
            **named,
        ) from error
    for part in path.split("."):
        try:
            value = getattr(value, part)
        except Exception as error:  # foreign code: modules and classes may compute attributes
            near = nearest(part, dir(value), count=1)
            hint = f", did its author mean {near[0]!r}?" if near else ""
            raise BrokenPluginError(
                f"{head}: {module_name} has no {path!r}{hint} (its descriptor says {reference!r})",
                **named,
            ) from error
    if not callable(value):
        raise BrokenPluginError(
            f"{head}: {reference} is of type {type(value).__name__}, expected a class or function",
            **named,
        )
    return traced(value, registration.qualified, kind.name) if is_tracing() else value
