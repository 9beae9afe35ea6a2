"""Finds the faces that installed distributions announce, without importing any of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import Distribution, EntryPoint, distributions

import attrs

from tersely.registry.hookspecs import ENTRY_POINT_GROUP
from tersely.registry.record import normalized

STRICT = "TERSELY_STRICT_PLUGINS"
ALLOW = "TERSELY_PLUGINS"
DENY = "TERSELY_NO_PLUGINS"


@attrs.frozen(kw_only=True)
class Announcement:
    """An entry point that promises a face.

    Attributes:
        name: the entry point's name.
        distribution: the distribution's name.
        version: the distribution's version.
        entry_point: what to load, or None when the announcement itself cannot be read.
        problem: why it cannot be read, or None.
    """

    name: str
    distribution: str
    version: str
    entry_point: EntryPoint | None = None
    problem: str | None = None


@attrs.frozen(kw_only=True)
class Policy:
    """Which plugins the environment allows, and whether a failing one is fatal.

    Attributes:
        allowed: normalized entry point or distribution names, or None for all.
        denied: normalized entry point or distribution names; a denial wins over a permission.
        strict: whether a plugin that fails to load stops the program.
    """

    allowed: frozenset[str] | None = None
    denied: frozenset[str] = frozenset()
    strict: bool = False


def read_policy(environ: Mapping[str, str]) -> Policy:
    """Read the policy from environment variables; an empty variable counts as absent.

    Args:
        environ: the environment, as ``os.environ``.
    """
    allowed = _listed(environ.get(ALLOW, ""))
    return Policy(
        allowed=allowed or None,
        denied=_listed(environ.get(DENY, "")),
        strict=environ.get(STRICT, "") not in ("", "0"),
    )


def denial(policy: Policy, announcement: Announcement) -> str | None:
    """Return why the policy excludes a plugin, or None when it may load.

    Args:
        policy: what the environment says.
        announcement: the plugin in question.
    """
    names = {normalized(announcement.name), normalized(announcement.distribution)}
    if names & policy.denied:
        return f"denied by {DENY}"
    if policy.allowed is not None and not names & policy.allowed:
        return f"not among the plugins that {ALLOW} allows"
    return None


def announcements(path: Sequence[str] | None = None) -> tuple[Announcement, ...]:
    """Return every face that is announced, ordered by distribution and name.

    A distribution found twice on the path (an editable install next to its wheel, say) counts
    once, and the first on the path wins, as it does for ``import``.

    Args:
        path: folders to search for distributions, or None for ``sys.path``.
    """
    seen: set[str] = set()
    found: list[Announcement] = []
    for distribution in distributions() if path is None else distributions(path=list(path)):
        if not _announces(distribution):
            continue
        new = list(_read(distribution))
        if new and normalized(new[0].distribution) not in seen:
            seen.add(normalized(new[0].distribution))
            found.extend(new)
    return tuple(sorted(found, key=lambda item: (normalized(item.distribution), item.name)))


def _listed(value: str) -> frozenset[str]:
    return frozenset(normalized(part.strip()) for part in value.split(",") if part.strip())


def _announces(distribution: Distribution) -> bool:
    # Only the files that mention our group are parsed: most distributions cost one read, and a
    # damaged entry_points.txt of a stranger, which importlib would choke on, never matters.
    try:
        text = distribution.read_text("entry_points.txt")
    except (OSError, UnicodeDecodeError):
        return False  # unreadable, so nothing says that it concerns us
    return text is not None and f"[{ENTRY_POINT_GROUP}]" in text


def _read(distribution: Distribution) -> Iterator[Announcement]:
    name, version = _identity(distribution)
    try:
        entry_points = [
            entry_point
            for entry_point in distribution.entry_points
            if entry_point.group == ENTRY_POINT_GROUP
        ]
    except Exception as error:  # a damaged entry_points.txt, likewise
        yield Announcement(
            name=name or "unknown",
            distribution=name or "unknown",
            version=version,
            problem=f"its entry_points.txt cannot be read: {type(error).__name__}: {error}",
        )
        return
    for entry_point in dict.fromkeys(entry_points):
        yield Announcement(
            name=entry_point.name,
            distribution=name or entry_point.name,
            version=version,
            entry_point=entry_point,
        )


def _identity(distribution: Distribution) -> tuple[str | None, str]:
    try:
        metadata = distribution.metadata
        # PackageMetadata promises no get() on Python 3.10.
        name = metadata["Name"] if "Name" in metadata else None  # noqa: SIM401
        version = metadata["Version"] if "Version" in metadata else "unknown"  # noqa: SIM401
    except Exception:  # a missing or damaged METADATA raises differently in every Python version
        return None, "unknown"
    return name, version
