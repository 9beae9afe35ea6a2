"""One kind of thing, looked up by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar, cast

import attrs

from tersely.errors import PluginError
from tersely.registry.descriptors import Descriptor
from tersely.registry.implementation import load_implementation
from tersely.registry.kinds import Kind
from tersely.registry.lookup import Snapshot, find, names
from tersely.registry.record import Registration

Described_co = TypeVar("Described_co", bound=Descriptor, covariant=True)


@attrs.frozen(eq=False)
class Catalog(Generic[Described_co]):
    """All pruners, or all losses, and so on; always shows what is registered now.

    Every name may be short (``l1_norm``) or qualified (``tersely-pruning:l1_norm``). A short name
    that several distributions provide is listed qualified and cannot be used short.

    Attributes:
        kind: what it lists.
    """

    kind: Kind
    _snapshot: Callable[[], Snapshot] = attrs.field(repr=False)

    def __getitem__(self, name: str) -> Callable[..., object]:
        """Import and return the implementation of a name.

        Args:
            name: short or qualified.

        Raises:
            UnknownPluginError: no plugin provides the name.
            PluginConflictError: several distributions provide the short name.
            BrokenPluginError: its plugin or its implementation fails.
            PluginApiError: only a plugin for another API provides it.
        """
        return load_implementation(self.kind, self.record(name))

    def info(self, name: str) -> Described_co:
        """Return the descriptor of a name without importing its implementation.

        Args:
            name: short or qualified.

        Raises:
            PluginError: as in `__getitem__`.
        """
        return cast("Described_co", self.record(name).descriptor)

    def record(self, name: str) -> Registration:
        """Return the descriptor of a name with the distribution that provides it.

        Args:
            name: short or qualified.

        Raises:
            PluginError: as in `__getitem__`.
        """
        return find(self._snapshot(), self.kind, name)

    def official(self, name: str) -> str:
        """Return how one of the core's own defaults is spelled, whatever else is installed.

        Args:
            name: a short name that an official distribution provides.

        Returns:
            The qualified name; the short one where that distribution does not provide it.
        """
        qualified = f"{self.kind.family}:{name}"
        return qualified if qualified in self else name

    def names(self) -> tuple[str, ...]:
        """Return every usable spelling, sorted: short names, or qualified where they clash."""
        return names(self._snapshot(), self.kind)

    def __contains__(self, name: object) -> bool:
        """Tell whether `info` would return, so a clashing short name is not contained."""
        if not isinstance(name, str):
            return False
        try:
            self.record(name)
        except PluginError:
            return False
        return True

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __len__(self) -> int:
        return len(self.names())
