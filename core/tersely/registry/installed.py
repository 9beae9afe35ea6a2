"""Loads every installed plugin, one at a time, unless the environment excludes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version

import attrs
import pluggy

from tersely.registry.discovery import ALLOW, Policy, announcements, denial, read_policy
from tersely.registry.loading import admit, deny, failure, load_face
from tersely.registry.record import CORE, Plugin, PluginRecord, normalized, same_distribution
from tersely.registry.undoing import process_state


def load_plugins(
    manager: pluggy.PluginManager,
    *,
    environ: Mapping[str, str],
    path: Sequence[str] | None = None,
) -> tuple[Plugin, ...]:
    """Load the core's own face and then everything installed, ordered by distribution.

    Args:
        manager: keeps the hooks of the plugins that are good.
        environ: the environment, as ``os.environ``.
        path: folders to search for distributions, or None for ``sys.path``.

    Returns:
        All plugins in whatever state.

    Raises:
        BrokenPluginError: a plugin is broken and ``TERSELY_STRICT_PLUGINS`` is set.
        PluginApiError: a plugin is refused and ``TERSELY_STRICT_PLUGINS`` is set.
    """
    policy = read_policy(environ)
    found = announcements(path)
    plugins = [_load_core(manager)]
    process = process_state()
    for announcement in found:
        reason = denial(policy, announcement)
        if reason is not None:
            plugins.append(deny(announcement, reason))
            continue
        plugin = _without_doubles(manager, load_face(manager, announcement, process), plugins)
        if policy.strict and plugin.record.state != "ok":
            raise failure(plugin)
        plugins.append(plugin)
    _warn_of_absentees(policy, plugins)
    return tuple(plugins)


def _without_doubles(
    manager: pluggy.PluginManager, new: Plugin, plugins: Sequence[Plugin]
) -> Plugin:
    """Return the plugin, broken where another face of its distribution has one of its names.

    A qualified name has to mean one thing, so the face that comes first keeps it.
    """
    for plugin in plugins if new.record.state == "ok" else ():
        if not same_distribution(plugin.record.distribution, new.record.distribution):
            continue
        both = [each for each in new.record.provides if each in plugin.record.provides]
        if both and plugin.record.state == "ok":
            kind, name = both[0]
            manager.unregister(new.face)
            reason = (
                f"its face {new.record.name} provides the {kind} {name!r}, as the face "
                f"{plugin.record.name} of the same distribution does"
            )
            return attrs.evolve(
                new,
                record=attrs.evolve(new.record, state="broken", reason=reason),
                face=None,
                module_settings=(),
            )
    return new


def _load_core(manager: pluggy.PluginManager) -> Plugin:
    record = PluginRecord(name=CORE, distribution=CORE, version=_core_version())
    # Imported by name: the face describes, and so sits above, this package.
    face = import_module("tersely.registry.core_face")
    plugin = admit(manager, face, record=record, key=CORE, must_state_api=True)
    if plugin.record.state != "ok":
        raise failure(plugin)
    return plugin


def _core_version() -> str:
    try:
        return version(CORE)
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "0+unknown"


def _warn_of_absentees(policy: Policy, plugins: Sequence[Plugin]) -> None:
    present = {normalized(plugin.record.name) for plugin in plugins}
    present |= {normalized(plugin.record.distribution) for plugin in plugins}
    absent = sorted((policy.allowed or frozenset()) - present)
    if absent:
        # Imported here because structlog costs more than all of the registry.
        from tersely.log import logger

        logger(__name__).warning("allowed_plugins_not_installed", variable=ALLOW, names=absent)
