"""Asks one plugin what it provides, and isolates its failures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import attrs
import pluggy

from tersely.registry import hookspecs
from tersely.registry.copies import Described, one_line, own_copy
from tersely.registry.descriptors import Descriptor, ModuleSetting
from tersely.registry.hookspecs import plugin_api
from tersely.registry.kinds import KINDS, Kind
from tersely.registry.option_schemas import schema_problem
from tersely.text import nearest

MODULE_SETTINGS_HOOK = "tersely_module_settings"
OBSERVING_HOOKS = ("tersely_plan_resolved", "tersely_masks_updated", "tersely_finalized")
HOOKS = (*(kind.hook for kind in KINDS), MODULE_SETTINGS_HOOK, *OBSERVING_HOOKS)


@attrs.frozen(kw_only=True, eq=False)
class Failure:
    """Why a plugin cannot be used.

    Attributes:
        reason: one sentence without the plugin's name.
        cause: the plugin's own exception, or None when it broke a rule of the plugin API.
    """

    reason: str
    cause: BaseException | None = None


@attrs.frozen(kw_only=True, eq=False)
class Collected:
    """What one plugin describes.

    Attributes:
        descriptors: kind name -> descriptors; kinds whose hook is missing or failed are absent.
        module_settings: default targets for module types.
        failures: everything that went wrong, in the order of hooks; empty for a good plugin.
    """

    descriptors: Mapping[str, tuple[Descriptor, ...]] = attrs.field(factory=dict)
    module_settings: tuple[ModuleSetting, ...] = ()
    failures: tuple[Failure, ...] = ()


def new_manager() -> pluggy.PluginManager:
    """Return a pluggy manager that knows tersely's hooks and no plugin."""
    manager = pluggy.PluginManager("tersely")
    manager.add_hookspecs(hookspecs)
    return manager


def stated_api(face: object) -> object:
    """Return the plugin API version a face states, or None when it states none."""
    return getattr(face, "tersely_api", None)


def api_problem(face: object, *, must_state_api: bool) -> str | None:
    """Return why a face's API version does not fit, or None when it does.

    Args:
        face: the module or object.
        must_state_api: whether a face that states no version is refused.
    """
    stated = stated_api(face)
    major, minor = plugin_api
    offered = f"this tersely has plugin API {major}.{minor}"
    if stated is None:
        if not must_state_api:
            return None
        return (
            f"it does not state the plugin API it is written for, {offered}; its face needs the "
            f"line 'tersely_api = {major}'"
        )
    needed = _version(stated)
    if needed is not None and needed[0] == major and needed[1] <= minor:
        return None
    spelled = repr(stated) if needed is None else ".".join(map(str, needed)).removesuffix(".0")
    return f"it is written for plugin API {spelled}, {offered}; install releases of both that agree"


def _version(stated: object) -> tuple[int, int] | None:
    """Read ``1`` or ``(1, 1)`` as a major and a minor version, or return None."""
    parts = stated if isinstance(stated, tuple) else (stated, 0)
    if len(parts) != len(plugin_api) or not all(type(part) is int for part in parts):
        return None
    return parts[0], parts[1]


def collect(manager: pluggy.PluginManager, face: object, *, key: str) -> Collected:
    """Register a face with pluggy and call each of its collecting hooks on its own.

    A plugin is taken whole: if anything fails the face is unregistered again, and what could be
    collected only serves to tell which names the broken plugin would provide.

    Args:
        manager: keeps the hooks; changed only when everything went well.
        face: the module or object.
        key: the name pluggy knows the face by, unique in the manager.
    """
    doing = "pluggy does not accept its hooks"
    try:
        manager.register(face, name=key)
        doing = "its hooks cannot be read"
        collected = _call_hooks(manager, face)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # wrong hook signatures, and whatever a foreign object does
        if manager.get_plugin(key) is face:
            manager.unregister(name=key)  # pluggy before 1.7 leaves it half registered
        return Collected(failures=(Failure(reason=f"{doing}: {describe(error)}", cause=error),))
    if collected.failures:
        manager.unregister(name=key)
    return collected


def describe(error: BaseException) -> str:
    """Return an exception as one line: its type and its message."""
    try:
        text = one_line(str(error))
    except KeyboardInterrupt:
        raise
    except BaseException:  # a foreign exception may fail to say what it is
        text = ""
    # Not the attribute itself, which a foreign metaclass may compute.
    name = type.__dict__["__name__"].__get__(type(error))
    return f"{name}: {text}" if text else name


def _call_hooks(manager: pluggy.PluginManager, face: object) -> Collected:
    implementations: dict[str, list[pluggy.HookImpl]] = {}
    for caller in manager.get_hookcallers(face) or ():
        of_face = [each for each in caller.get_hookimpls() if each.plugin is face]
        implementations[caller.name] = of_face
    failures = [Failure(reason=reason) for reason in _misuses(face, implementations)]
    descriptors: dict[str, tuple[Descriptor, ...]] = {}
    for kind in KINDS:
        hooked = implementations.get(kind.hook, ())
        returned = _gather(kind.hook, hooked, kind.descriptor, failures)
        if returned:
            descriptors[kind.name] = returned
            failures += _duplicates(kind, returned)
            failures += _unusable_schemas(kind, returned)
    hooked = implementations.get(MODULE_SETTINGS_HOOK, ())
    settings = _gather(MODULE_SETTINGS_HOOK, hooked, ModuleSetting, failures)
    return Collected(descriptors=descriptors, module_settings=settings, failures=tuple(failures))


def _misuses(face: object, implementations: Mapping[str, Sequence[pluggy.HookImpl]]) -> list[str]:
    reasons = []
    for name, own in implementations.items():
        if name not in HOOKS and not all(each.optionalhook for each in own):
            near = nearest(name, HOOKS, count=1)
            hint = f"did you mean {near[0]}?" if near else f"the hooks are {', '.join(HOOKS)}"
            reasons.append(f"{name} is not a hook of tersely; {hint}")
        if any(each.wrapper or each.hookwrapper for each in own):
            reasons.append(f"{name} is declared as a wrapper, and tersely's hooks take none")
    bare = [
        name
        for name in HOOKS
        if name not in implementations and callable(getattr(face, name, None))
    ]
    reasons += [f"{name} lacks the decorator @tersely.hookimpl" for name in bare]
    if not implementations and not bare:
        reasons.append(
            f"it implements no hook; decorate a function such as {HOOKS[0]}() with "
            "@tersely.hookimpl"
        )
    return reasons


def _gather(
    name: str,
    implementations: Iterable[pluggy.HookImpl],
    expected: type[Described],
    failures: list[Failure],
) -> tuple[Described, ...]:
    gathered: list[Described] = []
    for implementation in implementations:
        try:
            returned: object = implementation.function()
            if not isinstance(returned, list | tuple):
                found = f"{name}() returned {type(returned).__name__}"
                failures.append(Failure(reason=f"{found}, expected a list of {expected.__name__}"))
                continue
            items = _items(returned)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # foreign code, which may even call sys.exit
            failures.append(Failure(reason=f"{name}() raised {describe(error)}", cause=error))
            continue
        for position, item in enumerate(items):
            place = f"{name}()[{position}]"
            try:
                if isinstance(item, expected):
                    gathered.append(own_copy(item, expected))
                else:
                    found = f"{place} is of type {type(item).__name__}"
                    failures.append(Failure(reason=f"{found}, expected {expected.__name__}"))
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # a subclass may compute its attributes
                reason = f"{place} cannot be used: {describe(error)}"
                failures.append(Failure(reason=reason, cause=error))
    return tuple(gathered)


def _items(returned: list[object] | tuple[object, ...]) -> Sequence[object]:
    """Return what is in a list, without its own ``__iter__``, which may never end."""
    if isinstance(returned, list):
        return list.__getitem__(returned, slice(None))
    return tuple.__getitem__(returned, slice(None))


def _duplicates(kind: Kind, descriptors: Sequence[Descriptor]) -> list[Failure]:
    counts = Counter(descriptor.name for descriptor in descriptors)
    return [
        Failure(reason=f"it provides {count} {kind.catalog} called {name!r}, names must be unique")
        for name, count in counts.items()
        if count > 1
    ]


def _unusable_schemas(kind: Kind, descriptors: Sequence[Descriptor]) -> list[Failure]:
    found = []
    for descriptor in descriptors:
        for field in ("options", "values"):
            schema = getattr(descriptor, field, None)
            if schema is None and field == "values":
                continue
            reason = schema_problem(schema)
            if reason is not None:
                text = f"{field} of the {kind.name} {descriptor.name!r} cannot be used: {reason}"
                found.append(Failure(reason=text))
    return found
