"""The versions that a result depends on: tersely, torch and the plugins."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence

import torch

from tersely.json_value import Json
from tersely.planning.plan import Plan
from tersely.registry.registry import registry
from tersely.version import __version__


def loaded_versions() -> dict[str, str]:
    """Return distribution -> version of tersely, torch and every plugin that is loaded."""
    plugins = {
        record.distribution: record.version
        for record in registry().plugins()
        if record.state == "ok"
    }
    plugins.pop("tersely", None)
    ordered = dict(sorted(plugins.items()))
    return {"tersely": __version__, "torch": str(torch.__version__), **ordered}


def used_plugins(plan: Plan) -> list[dict[str, Json]]:
    """Return what a plan uses of which plugin, with the plugin's version.

    Args:
        plan: the plan of a session.
    """
    lookup = registry()
    found = []
    for stage in plan.recipe.stages:
        if stage.method == "pruning":
            found.append(("pruner", lookup.pruners.record(stage.algorithm)))
        elif stage.method == "quantization":
            found.append(("quantizer", lookup.quantizers.record(stage.algorithm)))
        if stage.schedule is not None:
            found.append(("schedule", lookup.schedules.record(stage.schedule.name)))
    return [
        {
            "kind": kind,
            "name": record.descriptor.name,
            "distribution": record.distribution,
            "version": record.version,
        }
        for kind, record in found
    ]


def check_versions(
    plugins: Sequence[Mapping[str, Json]], directory: str | os.PathLike[str]
) -> None:
    """Compare the plugins of a saved session with those installed now.

    A missing plugin is found when the plan is read; another version may still work, so it is a
    warning.

    Args:
        plugins: what `used_plugins` returned when the session was saved.
        directory: the session's folder, for the message.
    """
    installed = {record.distribution: record.version for record in registry().plugins()}
    for plugin in plugins:
        now = installed.get(plugin["distribution"])
        if now is not None and now != plugin["version"]:
            warnings.warn(
                f"{directory} was saved with {plugin['distribution']} {plugin['version']} for the "
                f"{plugin['kind']} {plugin['name']!r}; {now} is installed now and may decide "
                "otherwise",
                VersionWarning,
                stacklevel=4,
            )


class VersionWarning(UserWarning):
    """A saved session meets another version of a plugin than it was made with."""
