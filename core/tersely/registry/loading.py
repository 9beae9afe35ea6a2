"""Turns an announcement or a plain object into a plugin, whatever state it turns out to be in."""

from __future__ import annotations

from importlib.metadata import EntryPoint

import attrs
import pluggy

from tersely.errors import BrokenPluginError, PluginApiError, PluginError, UnknownPluginError
from tersely.registry.collect import (
    Collected,
    Failure,
    api_problem,
    collect,
    describe,
    new_manager,
)
from tersely.registry.discovery import DENY, Announcement
from tersely.registry.record import Plugin, PluginRecord, State, provided
from tersely.registry.trace import timed
from tersely.registry.undoing import ProcessState, undone
from tersely.registry.watched import watched_loading


def load_face(
    manager: pluggy.PluginManager, announcement: Announcement, process: ProcessState
) -> Plugin:
    """Import an announced face and collect from it; a failure stays inside the result.

    Args:
        manager: keeps the hooks of the faces that are good.
        announcement: what the distribution says.
        process: what is put back afterwards, whatever the face does.
    """
    record = _record(announcement)
    if announcement.entry_point is None:
        return _unusable(record, "broken", Failure(reason=announcement.problem or ""))
    with (
        timed(record.title, "face", "load"),
        undone(process) as changed,
        watched_loading() as seen,
    ):
        plugin = _import_face(manager, announcement.entry_point, record)
    loading = attrs.evolve(seen(), changes=changed())
    return attrs.evolve(plugin, record=attrs.evolve(plugin.record, loading=loading))


def _import_face(
    manager: pluggy.PluginManager, entry_point: EntryPoint, record: PluginRecord
) -> Plugin:
    try:
        face = entry_point.load()
        compare: object = type(face).__eq__
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # foreign code, which may even call sys.exit
        reason = f"importing its face {entry_point.value} raised {describe(error)}"
        return _unusable(record, "broken", Failure(reason=reason, cause=error))
    # pluggy compares faces with ==, and one that compares in its own way would break the others.
    if face is not None and compare is not object.__eq__:  # None has one of its own since 3.12
        reason = f"its face {entry_point.value} defines its own __eq__; name a module instead"
        return _unusable(record, "broken", Failure(reason=reason))
    key = f"{record.distribution}:{record.name}"
    return admit(manager, face, record=record, key=key, must_state_api=True)


def deny(announcement: Announcement, reason: str) -> Plugin:
    """Return a plugin that the environment excludes; nothing is imported.

    Args:
        announcement: what the distribution says.
        reason: which variable excludes it.
    """
    return _unusable(_record(announcement), "denied", Failure(reason=reason))


def admit(
    manager: pluggy.PluginManager,
    face: object,
    *,
    record: PluginRecord,
    key: str,
    must_state_api: bool,
) -> Plugin:
    """Check a face that is imported already, and collect from it.

    Args:
        manager: keeps the hooks; changed only when the face is good.
        face: the module or object.
        record: its name, distribution and version.
        key: the name pluggy knows the face by.
        must_state_api: whether a face that states no API version is refused.
    """
    try:
        mismatch = api_problem(face, must_state_api=must_state_api)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a foreign object may do anything when an attribute is read
        reason = f"reading its tersely_api raised {describe(error)}"
        return _unusable(record, "broken", Failure(reason=reason, cause=error))
    if mismatch is not None:
        # What it provides is not used, but its names tell people what they miss.
        peeked = collect(new_manager(), face, key=key)
        return _unusable(record, "refused", Failure(reason=mismatch), peeked)
    collected = collect(manager, face, key=key)
    if collected.failures:
        reason = "; ".join(each.reason for each in collected.failures)
        cause = next((each.cause for each in collected.failures if each.cause), None)
        return _unusable(record, "broken", Failure(reason=reason, cause=cause), collected)
    return Plugin(
        record=attrs.evolve(record, provides=provided(collected.descriptors)),
        face=face,
        descriptors=collected.descriptors,
        module_settings=collected.module_settings,
    )


def failure(plugin: Plugin) -> PluginError:
    """Return the error that says why a plugin cannot be used, chained to what its code raised.

    Args:
        plugin: a broken, refused or denied plugin.
    """
    record = plugin.record
    error: PluginError
    named = {"plugin": record.name, "distribution": record.distribution}
    if record.state == "denied":
        error = UnknownPluginError(f"{record.title} is {record.reason}", **named)
    elif record.state == "refused":
        error = PluginApiError(f"{record.title} is refused: {record.reason}", **named)
    else:
        error = BrokenPluginError(
            f"{record.title} is broken: {record.reason}; repair or uninstall it, or do without "
            f"it: {DENY}={record.distribution}",
            **named,
        )
    error.__cause__ = plugin.cause
    return error


def _record(announcement: Announcement) -> PluginRecord:
    return PluginRecord(
        name=announcement.name,
        distribution=announcement.distribution,
        version=announcement.version,
    )


def _unusable(
    record: PluginRecord, state: State, reason: Failure, collected: Collected | None = None
) -> Plugin:
    descriptors = {} if collected is None else collected.descriptors
    return Plugin(
        record=attrs.evolve(
            record, state=state, reason=reason.reason, provides=provided(descriptors)
        ),
        descriptors=descriptors,
        cause=reason.cause,
    )
