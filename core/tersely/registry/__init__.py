"""Descriptors, hooks and the registry of plugins; calling the package gives the registry.

Private: `tersely.registry()` is the public way in.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tersely.registry.registry import Registry


class _CallablePackage(ModuleType):
    """A package that is also the function of its name.

    ``tersely.registry()`` is public, and importing any submodule binds ``tersely.registry`` to
    this package, whatever ``tersely/__init__.py`` put there. So the package answers the call.
    """

    def __call__(self) -> Registry:
        # Lazy: descriptors and hookspecs are part of `import tersely`, discovery is not.
        from tersely.registry.registry import registry

        return registry()


sys.modules[__name__].__class__ = _CallablePackage
