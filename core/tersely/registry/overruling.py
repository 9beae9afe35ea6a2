"""Finds default targets of a plugin that have no effect because others take precedence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tersely.registry.descriptors import METHODS, ModuleSetting
from tersely.registry.record import CORE, Plugin


def by_precedence(plugins: Sequence[Plugin]) -> Sequence[Plugin]:
    """Return the usable plugins; of two settings for one module type the later plugin's counts.

    Args:
        plugins: all plugins, in the order in which they were loaded.
    """
    usable = [plugin for plugin in plugins if plugin.record.state == "ok"]
    return sorted(usable, key=lambda plugin: plugin.record.distribution == CORE)


def overruled(plugins: Sequence[Plugin]) -> Mapping[str, tuple[str, ...]]:
    """Return, by plugin name, the module types that it sets without effect, and what overrules it.

    Args:
        plugins: usable plugins; what a later one sets counts.
    """
    found: dict[str, tuple[str, ...]] = {}
    for position, plugin in enumerate(plugins):
        lost = [
            f"{setting.module_type} (that of {winner.record.title} takes precedence)"
            for setting in plugin.module_settings
            for winner in plugins[position + 1 :]
            if any(_is_taken(setting, other) for other in winner.module_settings)
        ]
        if lost:
            found[plugin.record.name] = tuple(lost)
    return found


def _is_taken(setting: ModuleSetting, other: ModuleSetting) -> bool:
    shares = any(getattr(setting, method) and getattr(other, method) for method in METHODS)
    return shares and _is_one_type(setting.module_type, other.module_type)


def _is_one_type(first: str, second: str) -> bool:
    # A bare name means a class of that name wherever it is.
    if "." in first and "." in second:
        return first == second
    return first.rpartition(".")[2] == second.rpartition(".")[2]
