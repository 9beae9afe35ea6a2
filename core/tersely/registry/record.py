"""What the registry knows of each plugin and of each thing it provides, as frozen data."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from types import ModuleType
from typing import Literal

import attrs

from tersely.registry.descriptors import Descriptor, ModuleSetting
from tersely.registry.kinds import KINDS

CORE = "tersely"
"""The distribution of the core and the name of its own face."""

State = Literal["ok", "broken", "refused", "denied"]


@attrs.frozen(kw_only=True)
class Loading:
    """What loading a face took.

    Attributes:
        seconds: how long importing it and calling its hooks took.
        imports_torch: whether it imported torch, which makes listing and validation slow.
        printed: what it wrote to standard output, which is not shown.
        changes: what else it did to the process, in words such as ``changes sys.path``; it was
            undone, except that threads keep running.
    """

    seconds: float = 0.0
    imports_torch: bool = False
    printed: str = ""
    changes: tuple[str, ...] = ()


@attrs.frozen(kw_only=True)
class PluginRecord:
    """One plugin: where it comes from and whether it can be used.

    Attributes:
        name: its entry point's name, or the name it was registered under.
        distribution: the distribution that announced it; for a plugin registered by hand, its
            name.
        version: the distribution's version.
        state: ``ok``; ``broken`` when it failed to load or to describe itself; ``refused`` when
            it is written for another plugin API; ``denied`` when the environment excludes it.
        reason: why it is not ok, in one sentence; empty when it is.
        provides: (kind, name) of everything it describes, as far as that is known.
        loading: what loading its face took; None where nothing was imported for it.
        file: where a plugin of one file is, absolute; None for all others.
    """

    name: str
    distribution: str
    version: str
    state: State = "ok"
    reason: str = ""
    provides: tuple[tuple[str, str], ...] = ()
    loading: Loading | None = None
    file: str | None = None

    @property
    def title(self) -> str:
        """The distribution and its version, for messages."""
        return f"{self.distribution} {self.version}"


@attrs.frozen(kw_only=True)
class Registration:
    """One descriptor and the distribution that provides it.

    Attributes:
        descriptor: what the plugin says of it.
        distribution: the distribution's name.
        version: the distribution's version.
        module: the module of a plugin of one file, which no import finds; None for all others.
    """

    descriptor: Descriptor
    distribution: str
    version: str
    module: ModuleType | None = attrs.field(default=None, eq=False, repr=False)

    @property
    def qualified(self) -> str:
        """The spelling that is clear whatever else is installed: ``distribution:name``."""
        return f"{self.distribution}:{self.descriptor.name}"

    @property
    def title(self) -> str:
        """The distribution and its version, for messages."""
        return f"{self.distribution} {self.version}"


@attrs.frozen(kw_only=True, eq=False)
class Plugin:
    """A plugin with everything collected from it.

    Attributes:
        record: what is shown of it.
        face: the module or object whose hooks are called, or None when it never loaded.
        descriptors: kind name -> descriptors, as far as they could be collected.
        module_settings: default targets for module types.
        cause: what the plugin's own code raised, or None.
    """

    record: PluginRecord
    face: object | None = None
    descriptors: Mapping[str, tuple[Descriptor, ...]] = attrs.field(factory=dict)
    module_settings: tuple[ModuleSetting, ...] = ()
    cause: BaseException | None = None

    @property
    def module(self) -> ModuleType | None:
        """The module of a plugin of one file, which no import finds; None for all others."""
        if self.record.file is not None and isinstance(self.face, ModuleType):
            return self.face
        return None


def record_by_hand(plugin: object, name: str | None) -> PluginRecord:
    """Return the record of a plugin that no distribution announces.

    Args:
        plugin: a module, a class or an object.
        name: what it is called, or None for the name of the module or class.
    """
    if not name:
        found = getattr(plugin, "__name__", None)
        name = found if isinstance(found, str) else type(plugin).__name__
    version = getattr(plugin, "__version__", None)
    return PluginRecord(
        name=name,
        distribution=name,
        version=version if isinstance(version, str) else "0+local",
    )


def same_distribution(first: str, second: str) -> bool:
    """Tell whether two spellings name one distribution (PEP 503: case, ``-``, ``_`` and ``.``)."""
    return normalized(first) == normalized(second)


@cache
def normalized(distribution: str) -> str:
    """Return a distribution's name as package indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def provided(descriptors: Mapping[str, tuple[Descriptor, ...]]) -> tuple[tuple[str, str], ...]:
    """Return (kind, name) of every descriptor, in the order of kinds and then as announced."""
    return tuple(
        (kind.name, descriptor.name)
        for kind in KINDS
        for descriptor in descriptors.get(kind.name, ())
    )
