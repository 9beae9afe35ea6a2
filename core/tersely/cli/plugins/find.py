"""Finds what a name on the command line means among all kinds of plugin."""

from __future__ import annotations

from tersely.errors import UnknownPluginError
from tersely.registry.kinds import KINDS, Kind
from tersely.registry.record import PluginRecord, Registration, same_distribution
from tersely.registry.registry import Registry
from tersely.text import nearest

KIND_NAMES = tuple(kind.name for kind in KINDS)


def find_names(
    installed: Registry, name: str, *, kind_name: str | None = None
) -> tuple[tuple[Kind, Registration], ...]:
    """Return everything of a name, in whatever kind.

    Args:
        installed: the registry.
        name: a short or qualified name.
        kind_name: only of this kind, or None for all.

    Returns:
        Kind and registration of each, possibly none.

    Raises:
        PluginError: the name exists but cannot be used; see `tersely.registry.catalog.Catalog`.
        UnknownPluginError: ``kind_name`` is given and nothing of that kind has the name.
    """
    kinds = [kind for kind in KINDS if kind_name in (None, kind.name)]
    found = []
    for kind in kinds:
        catalog = getattr(installed, kind.catalog)
        try:
            found.append((kind, catalog.record(name)))
        except UnknownPluginError:
            if kind_name is not None:
                raise
    return tuple(found)


def find_plugins(installed: Registry, name: str) -> tuple[PluginRecord, ...]:
    """Return the plugins of an entry point's or a distribution's name.

    Args:
        installed: the registry.
        name: the name.
    """
    return tuple(
        record
        for record in installed.plugins()
        if record.name == name or same_distribution(record.distribution, name)
    )


def provided_by(installed: Registry, name: str) -> tuple[tuple[Kind, Registration], ...]:
    """Return everything that the usable plugins of a distribution provide.

    Args:
        installed: the registry.
        name: an entry point's or a distribution's name.

    Returns:
        Kind and registration of each.
    """
    return tuple(
        (kind, getattr(installed, kind.catalog).record(f"{record.distribution}:{provided}"))
        for record in find_plugins(installed, name)
        if record.state == "ok"
        for kind_name, provided in record.provides
        for kind in KINDS
        if kind.name == kind_name
    )


def loading_text(record: PluginRecord) -> str:
    """Return how long a plugin's face took to load, with what it should not have done.

    Args:
        record: the plugin.
    """
    if record.loading is None:
        return ""
    seconds = record.loading.seconds
    remarks = [f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"]
    if record.loading.imports_torch:
        remarks.append("imports torch")
    if record.loading.printed:
        remarks.append("prints")
    remarks += record.loading.changes
    return ", ".join(remarks)


def unknown(installed: Registry, name: str) -> UnknownPluginError:
    """Return the error for a name that is neither a plugin nor provided by one.

    Args:
        installed: the registry.
        name: what was asked for.
    """
    names = [each for kind in KINDS for each in getattr(installed, kind.catalog)]
    names += [record.distribution for record in installed.plugins()]
    near = nearest(name, names)
    hint = f"; did you mean {' or '.join(repr(each) for each in near)}?" if near else ""
    return UnknownPluginError(
        f"neither a plugin nor anything that a plugin provides is called {name!r}{hint}\n"
        "  'tersely plugins list' shows what is installed",
        plugin=name,
    )
