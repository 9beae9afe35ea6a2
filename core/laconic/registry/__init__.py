"""Descriptors, hooks and the registry of plugins; calling the package gives the registry."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from laconic.registry.registry import Registry


class _CallablePackage(ModuleType):
    """A package that is also the function of its name.

    ``laconic.registry()`` is public, and importing any submodule binds ``laconic.registry`` to
    this package, whatever ``laconic/__init__.py`` put there. So the package answers the call.
    """

    def __call__(self) -> Registry:
        # Lazy: descriptors and hookspecs are part of `import laconic`, discovery is not.
        from laconic.registry.registry import registry

        return registry()


sys.modules[__name__].__class__ = _CallablePackage
