"""Finds a name among what plugins provide, and says precisely why it cannot be found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import attrs

from tersely.errors import PluginConflictError, PluginError, UnknownPluginError
from tersely.registry.descriptors import ModuleSetting
from tersely.registry.kinds import KINDS, Kind
from tersely.registry.loading import failure
from tersely.registry.record import Plugin, Registration, normalized, same_distribution
from tersely.text import nearest

_LISTED_AT_MOST = 12


@attrs.frozen(eq=False)
class Snapshot:
    """Everything that is registered at one moment; a change makes a new one.

    Attributes:
        plugins: all plugins, the core's own first.
        user_settings: module settings that the user registered, oldest first.
        registrations: kind name -> short name -> who provides it; usable plugins only.
    """

    plugins: tuple[Plugin, ...] = ()
    user_settings: tuple[ModuleSetting, ...] = ()
    registrations: Mapping[str, Mapping[str, tuple[Registration, ...]]] = attrs.field(init=False)

    @registrations.default
    def _index(self) -> dict[str, dict[str, tuple[Registration, ...]]]:
        index: dict[str, dict[str, tuple[Registration, ...]]] = {kind.name: {} for kind in KINDS}
        for plugin in self.plugins:
            if plugin.record.state != "ok":
                continue
            for kind, descriptors in plugin.descriptors.items():
                for descriptor in descriptors:
                    registration = Registration(
                        descriptor=descriptor,
                        distribution=plugin.record.distribution,
                        version=plugin.record.version,
                        module=plugin.module,
                    )
                    known = index[kind].get(descriptor.name, ())
                    index[kind][descriptor.name] = (*known, registration)
        return index


def names(snapshot: Snapshot, kind: Kind) -> tuple[str, ...]:
    """Return the usable spellings of one kind, sorted; clashing names appear qualified.

    Args:
        snapshot: what is registered.
        kind: the kind of thing.
    """
    return tuple(
        sorted(
            short if len(registrations) == 1 else registration.qualified
            for short, registrations in snapshot.registrations[kind.name].items()
            for registration in registrations
        )
    )


def find(snapshot: Snapshot, kind: Kind, name: str) -> Registration:
    """Return who provides a short or a qualified name.

    Args:
        snapshot: what is registered.
        kind: the kind of thing.
        name: ``name`` or ``distribution:name``.

    Raises:
        UnknownPluginError: no plugin provides it, or its distribution is absent or denied.
        PluginConflictError: several distributions provide the short name.
        BrokenPluginError: only a broken plugin provides it.
        PluginApiError: only a plugin for another API provides it.
    """
    distribution, _, short = str(name).rpartition(":")
    candidates = [
        registration
        for registration in snapshot.registrations[kind.name].get(short, ())
        if not distribution or same_distribution(registration.distribution, distribution)
    ]
    if len(candidates) == 1:
        return candidates[0]
    if candidates:
        raise _conflict(kind, short, candidates)
    culprits = [
        plugin
        for plugin in snapshot.plugins
        if plugin.record.state != "ok"
        and (not distribution or same_distribution(plugin.record.distribution, distribution))
    ]
    for plugin in culprits:
        if distribution or (kind.name, short) in plugin.record.provides:
            raise failure(plugin)
    raise _unknown(snapshot, kind, name, culprits=culprits)


def _conflict(kind: Kind, short: str, candidates: Sequence[Registration]) -> PluginError:
    titles = " and ".join(candidate.title for candidate in candidates)
    spellings = " or ".join(repr(candidate.qualified) for candidate in candidates)
    return PluginConflictError(
        f"{len(candidates)} distributions provide a {kind.name} called {short!r}: {titles}; "
        f"write {spellings}",
        plugin=short,
    )


def _unknown(
    snapshot: Snapshot, kind: Kind, name: str, *, culprits: Sequence[Plugin]
) -> PluginError:
    known = names(snapshot, kind)
    lines = [_headline(snapshot, kind, name, known), *_suspects(culprits)]
    installed = {normalized(plugin.record.distribution) for plugin in snapshot.plugins}
    if kind.family is not None and kind.family not in installed:
        lines.append(
            f"{kind.family}, which provides the official {kind.catalog}, is not installed: "
            f"pip install {kind.family}"
        )
    error = UnknownPluginError(
        "\n  ".join(lines), plugin=str(name), distribution=str(name).rpartition(":")[0] or None
    )
    failing = (failure(each) for each in culprits if each.record.state != "denied")
    error.__cause__ = next(failing, None)
    return error


def _headline(snapshot: Snapshot, kind: Kind, name: str, known: Sequence[str]) -> str:
    article = "an" if kind.name[0] in "aeiou" else "a"
    head = f"no plugin provides {article} {kind.name} called {name!r}"
    distribution, _, short = str(name).rpartition(":")
    distributions = sorted({plugin.record.distribution for plugin in snapshot.plugins})
    if distribution and not any(same_distribution(distribution, each) for each in distributions):
        near = nearest(distribution, distributions, count=1)
        hint = f", did you mean {near[0]!r}?" if near else ""
        return f"{head}: there is no distribution {distribution!r}{hint}"
    if distribution:
        known = [
            registration.qualified
            for registrations in snapshot.registrations[kind.name].values()
            for registration in registrations
            if same_distribution(registration.distribution, distribution)
        ]
        qualified = {each.rpartition(":")[2]: each for each in known}
        near = tuple(qualified[each] for each in nearest(short, qualified))
    else:
        near = nearest(str(name), known)
    if near:
        return f"{head}; did you mean {' or '.join(repr(each) for each in near)}?"
    if not known:
        return head
    more = len(known) - _LISTED_AT_MOST
    listed = ", ".join(known[:_LISTED_AT_MOST]) + (f" and {more} more" if more > 0 else "")
    return f"{head}; there are {listed}"


def _suspects(culprits: Sequence[Plugin]) -> Iterator[str]:
    for plugin in culprits:
        record = plugin.record
        state = "" if record.state == "denied" else f"{record.state}: "
        yield f"{record.title}, which might provide it, is {state}{record.reason}"
