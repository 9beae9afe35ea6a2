"""The registry: which plugins there are, what they provide, and the process-wide instance."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import pluggy

from tersely.errors import (
    BrokenPluginError,
    PluginApiError,
    PluginConflictError,
    PluginError,
    UnknownPluginError,
)
from tersely.registry.catalog import Catalog
from tersely.registry.collect import new_manager
from tersely.registry.descriptors import (
    DependencyTracerInfo,
    ExporterInfo,
    GranularityInfo,
    LossInfo,
    ModuleSetting,
    PrunerInfo,
    QuantizerInfo,
    ScheduleInfo,
)
from tersely.registry.installed import load_plugins
from tersely.registry.kinds import (
    EXPORTER,
    GRANULARITY,
    LOSS,
    PRUNER,
    QUANTIZER,
    SCHEDULE,
    TRACER,
)
from tersely.registry.loading import admit
from tersely.registry.lookup import Snapshot
from tersely.registry.notify import notify
from tersely.registry.one_file import run_file
from tersely.registry.overruling import by_precedence, overruled
from tersely.registry.record import Plugin, PluginRecord, record_by_hand, same_distribution

_process_lock = threading.RLock()
_process_registry: Registry | None = None
_is_loading = False


def registry() -> Registry:
    """Return the process-wide registry; the first call loads the installed plugins.

    Raises:
        PluginError: a plugin called it while plugins were being loaded.
        BrokenPluginError: a plugin is broken and ``TERSELY_STRICT_PLUGINS`` is set.
        PluginApiError: a plugin is refused and ``TERSELY_STRICT_PLUGINS`` is set.
    """
    global _process_registry, _is_loading  # noqa: PLW0603  # the one process-wide instance
    if _process_registry is not None:
        return _process_registry
    with _process_lock:
        if _is_loading:
            raise PluginError(
                "tersely.registry() was called while plugins are being loaded; a face only "
                "describes, look things up when the algorithm runs"
            )
        if _process_registry is None:
            _is_loading = True
            try:
                _process_registry = load_registry()
            finally:
                _is_loading = False
    return _process_registry


def load_registry(
    *, environ: Mapping[str, str] | None = None, path: Sequence[str] | None = None
) -> Registry:
    """Return a new registry with everything that is installed.

    Args:
        environ: holds ``TERSELY_PLUGINS`` and its siblings; None for ``os.environ``.
        path: folders to search for distributions, or None for ``sys.path``.

    Raises:
        BrokenPluginError: a plugin is broken and ``TERSELY_STRICT_PLUGINS`` is set.
        PluginApiError: a plugin is refused and ``TERSELY_STRICT_PLUGINS`` is set.
    """
    environ = os.environ if environ is None else environ
    return Registry(partial(load_plugins, environ=environ, path=path))


def register_module_setting(setting: ModuleSetting) -> None:
    """Add default targets for a module type to the process-wide registry.

    Args:
        setting: the module type and its targets; wins over those of every plugin.
    """
    registry().register_module_setting(setting)


class Registry:
    """Everything that plugins provide, looked up by kind and name.

    Reading takes no lock: each change replaces an immutable snapshot. Changes exclude each other.

    Args:
        load: returns the first plugins, with their hooks in the manager it is given; None for
            an empty registry.

    Attributes:
        pruners: pruning algorithms.
        quantizers: quantization algorithms.
        granularities: granularities.
        losses: distillation losses.
        schedules: sparsity schedules.
        exporters: export formats.
        tracers: tracers of channel dependencies.
    """

    def __init__(
        self, load: Callable[[pluggy.PluginManager], tuple[Plugin, ...]] | None = None
    ) -> None:
        self._lock = threading.RLock()
        self._manager = new_manager()
        self._snapshot = Snapshot(() if load is None else load(self._manager))
        self._revision = 1
        self.pruners: Catalog[PrunerInfo] = Catalog(PRUNER, self._now)
        self.quantizers: Catalog[QuantizerInfo] = Catalog(QUANTIZER, self._now)
        self.granularities: Catalog[GranularityInfo] = Catalog(GRANULARITY, self._now)
        self.losses: Catalog[LossInfo] = Catalog(LOSS, self._now)
        self.schedules: Catalog[ScheduleInfo] = Catalog(SCHEDULE, self._now)
        self.exporters: Catalog[ExporterInfo] = Catalog(EXPORTER, self._now)
        self.tracers: Catalog[DependencyTracerInfo] = Catalog(TRACER, self._now)

    @property
    def revision(self) -> int:
        """A number that grows with every change, for caches of what was derived from it."""
        return self._revision

    def plugins(self) -> tuple[PluginRecord, ...]:
        """Return all plugins in whatever state, the core's own first."""
        return tuple(plugin.record for plugin in self._snapshot.plugins)

    def overruled(self) -> Mapping[str, tuple[str, ...]]:
        """Return settings without effect: plugin name -> ``module type (what overrules it)``.

        Of two settings for one type and method the one that `module_settings` lists later counts.
        """
        return overruled(by_precedence(self._snapshot.plugins))

    def module_settings(self) -> tuple[ModuleSetting, ...]:
        """Return the default targets of module types; of two for one type the later counts.

        The plugins' come first, then the core's, then what the user registered: a plugin adds types
        to those that the core knows, and changes none of them for everybody.
        """
        snapshot = self._snapshot
        plugins = by_precedence(snapshot.plugins)
        provided = (setting for plugin in plugins for setting in plugin.module_settings)
        return (*provided, *snapshot.user_settings)

    def register_module_setting(self, setting: ModuleSetting) -> None:
        """Add default targets for a module type; they win over those of every plugin.

        Args:
            setting: the module type and its targets.
        """
        if not isinstance(setting, ModuleSetting):
            found = type(setting).__name__  # type: ignore[unreachable]  # notebooks are untyped
            raise TypeError(f"register_module_setting() takes a ModuleSetting, not {found}")
        with self._lock:
            settings = (*self._snapshot.user_settings, setting)
            self._publish(self._snapshot.plugins, settings)

    def register(self, plugin: object, *, name: str | None = None) -> str:
        """Register a module or an object with hooks by hand, as in a notebook or a test.

        Args:
            plugin: a module, or an object whose methods are decorated with ``tersely.hookimpl``.
            name: what it is called, also in qualified names; by default the module's or the
                class's name.

        Returns:
            The name, which `unregister` takes.

        Raises:
            PluginConflictError: a plugin of that name is registered already.
            PluginApiError: the plugin states another plugin API.
            BrokenPluginError: the plugin does not describe itself properly.
        """
        record = record_by_hand(plugin, name)
        with self._lock:
            self._refuse_second(record.name)
            self._admit(plugin, record)
        return record.name

    def register_file(self, path: str | os.PathLike[str]) -> str:
        """Run a Python file, and register it as a plugin.

        Args:
            path: a file with hooks and what their descriptors point to, as ``FILE:Object`` with
                the file's name without ``.py``.

        Returns:
            The file's name, as in ``my_pruner.py``; qualified names begin with it.

        Raises:
            PluginConflictError: another file of that name is registered already.
            PluginApiError: the file states another plugin API.
            BrokenPluginError: it cannot be read or run, or does not describe itself properly.
        """
        place = Path(path)
        with self._lock:
            self._refuse_second(place.name)
            module, record = run_file(place)
            self._admit(module, record)
        return record.name

    def unregister(self, plugin_or_name: object) -> None:
        """Remove a plugin and everything it provides.

        Args:
            plugin_or_name: the module or object, or the plugin's or its distribution's name.

        Raises:
            UnknownPluginError: there is no such plugin.
        """
        with self._lock:
            plugins = self._snapshot.plugins
            gone = [plugin for plugin in plugins if _is_meant(plugin, plugin_or_name)]
            if not gone:
                known = ", ".join(plugin.record.name for plugin in plugins) or "none"
                raise UnknownPluginError(
                    f"no plugin {plugin_or_name!r} is registered; registered: {known}",
                    plugin=plugin_or_name if isinstance(plugin_or_name, str) else None,
                )
            for plugin in gone:
                if plugin.record.state == "ok":
                    self._manager.unregister(plugin.face)
            self._publish(tuple(plugin for plugin in plugins if plugin not in gone))

    def observe(self, hook_name: str, **arguments: object) -> None:
        """Tell all plugins what happened; each is called, whatever another one does.

        Args:
            hook_name: an observing hook, such as ``tersely_plan_resolved``.
            arguments: the hook's arguments; a plugin receives those that it asks for.

        Raises:
            TerselyError: a plugin raised it of its own will, such as a PlanError that vetoes.
            BrokenPluginError: a plugin raised anything else; chained.
        """
        notify(self._manager, hook_name, arguments=arguments)

    def _admit(self, face: object, record: PluginRecord) -> None:
        new = admit(self._manager, face, record=record, key=record.name, must_state_api=False)
        if new.record.state != "ok":
            kind = PluginApiError if new.record.state == "refused" else BrokenPluginError
            text = f"{record.name} cannot be registered: {new.record.reason}"
            raise kind(text) from new.cause
        self._publish((*self._snapshot.plugins, new))

    def _now(self) -> Snapshot:
        return self._snapshot

    def _publish(
        self, plugins: tuple[Plugin, ...], settings: tuple[ModuleSetting, ...] | None = None
    ) -> None:
        settings = self._snapshot.user_settings if settings is None else settings
        self._snapshot = Snapshot(plugins, settings)
        self._revision += 1

    def _refuse_second(self, name: str) -> None:
        for record in self.plugins():
            if name == record.name or same_distribution(name, record.distribution):
                raise PluginConflictError(
                    f"a plugin called {name!r} is registered already ({record.title}, "
                    f"{record.state}); choose another name, or call unregister({record.name!r}) "
                    "first",
                    plugin=name,
                    distribution=record.distribution,
                )


def _is_meant(plugin: Plugin, plugin_or_name: object) -> bool:
    if isinstance(plugin_or_name, str):
        record = plugin.record
        is_named = plugin_or_name == record.name
        return is_named or same_distribution(plugin_or_name, record.distribution)
    return plugin.face is not None and plugin.face is plugin_or_name
