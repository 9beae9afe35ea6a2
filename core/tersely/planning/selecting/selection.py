"""Selection: which modules an entry means, in model order, and which of its selectors miss."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property

import attrs
from torch import nn

from tersely.document.recipe import Entry
from tersely.planning.remarks import Unmatched
from tersely.planning.selecting.classes import is_type, original_class
from tersely.planning.selecting.patterns import matches
from tersely.text import nearest

_ROOTS = ("Module", "torch.nn.Module")
"""Types that every module is a subclass of."""

_PLAIN_WORD = re.compile(r"[\w.]+\Z")

Suggest = Callable[[str, Iterable[str]], tuple[str, ...]]
"""Returns the candidates that look most like a word, best first."""


@attrs.frozen(slots=False, eq=False)
class Universe:
    """All modules of a model, named once.

    Attributes:
        names: every name of ``named_modules(remove_duplicate=False)``, in its order.
        modules: the module of each name.
    """

    names: tuple[str, ...]
    modules: tuple[nn.Module, ...]

    def __getstate__(self) -> dict[str, object]:
        # What is derived goes by identities, and the modules of a copy have others.
        return {"names": self.names, "modules": self.modules}

    @classmethod
    def of(cls, model: nn.Module) -> Universe:
        """Walk a model once."""
        names, modules = [], []
        for name, module in model.named_modules(remove_duplicate=False):
            names.append(name)
            modules.append(module)
        return cls(tuple(names), tuple(modules))

    @cached_property
    def index(self) -> dict[str, int]:
        """Position of each name."""
        return dict(zip(self.names, range(len(self.names)), strict=True))

    @cached_property
    def first(self) -> dict[int, int]:
        """``id(module)`` -> the position of its first name, which is its name everywhere."""
        # Written backwards, so that the first position of a shared module is the one that stays.
        count = len(self.modules)
        return dict(zip(map(id, reversed(self.modules)), range(count - 1, -1, -1), strict=True))

    @cached_property
    def distinct(self) -> list[nn.Module]:
        """Each module once."""
        return [self.modules[position] for position in self.first.values()]

    @cached_property
    def aliases(self) -> dict[int, tuple[str, ...]]:
        """First position of a shared module -> its other names."""
        if len(self.first) == len(self.names):
            return {}
        found: dict[int, list[str]] = {}
        for position, module in enumerate(self.modules):
            first = self.first[id(module)]
            if first != position:
                found.setdefault(first, []).append(self.names[position])
        return {first: tuple(names) for first, names in found.items()}

    @cached_property
    def by_class(self) -> dict[type[nn.Module], list[int]]:
        """The user's class -> positions of its modules."""
        found: dict[type[nn.Module], list[int]] = {}
        users = {cls: original_class(cls) for cls in dict.fromkeys(map(type, self.modules))}
        for position, module in enumerate(self.modules):
            found.setdefault(users[type(module)], []).append(position)
        return found

    def classes(self, type_name: str) -> list[type[nn.Module]]:
        """Return the classes of the model that a type name means."""
        return [cls for cls in self.by_class if is_type(cls, type_name)]

    def class_of(self, position: int) -> type[nn.Module]:
        """Return the user's class of the module at a position."""
        return original_class(type(self.modules[position]))

    def canonical(self, name: str) -> int | None:
        """Return the first position of the module a name means, or None."""
        position = self.index.get(name)
        return None if position is None else self.first[id(self.modules[position])]


@attrs.frozen
class Selection:
    """What one entry selects.

    Attributes:
        positions: first positions of the selected modules, in model order.
        selectors: for each of them the key and value that selected it.
        unmatched: selectors that matched nothing.
        hints: remarks on selectors that reach more than their author may expect.
        derived: modules that stay unselected because their types are subclasses of a named one:
            position -> the named type.
        excluded: position of a module that an exclude matches -> what matched it.
    """

    positions: tuple[int, ...]
    selectors: tuple[str, ...]
    unmatched: tuple[Unmatched, ...]
    hints: tuple[str, ...]
    derived: Mapping[int, str]
    excluded: Mapping[int, str]


def select(universe: Universe, entry: Entry, *, suggest: Suggest = nearest) -> Selection:
    """Apply rules S1 to S6.

    Args:
        universe: the model's modules.
        entry: one mapping of a config list.
        suggest: finds the near names of what matched nothing.

    Returns:
        The selected modules and every selector that matched nothing.
    """
    search = _Search(universe, entry.path, suggest)
    chosen: dict[int, str] = {}
    plain_words: list[tuple[str, Sequence[int]]] = []
    for position, name in enumerate(entry.op_names):
        search.take(chosen, search.name("op_names", position, name), f"op_names: {name}")
    for position, pattern in enumerate(entry.op_names_re):
        matched = search.pattern("op_names_re", position, pattern)
        search.take(chosen, matched, f"op_names_re: {pattern}")
        if _PLAIN_WORD.match(pattern):
            plain_words.append((pattern, matched))
    types = {
        type_name: search.type("op_types", position, type_name)
        for position, type_name in enumerate(entry.op_types)
    }
    derived = _derived(universe, types) if types else {}
    if not (entry.op_names or entry.op_names_re):
        for type_name, classes in types.items():
            for cls in classes:
                search.take(chosen, universe.by_class[cls], f"op_types: {type_name}")
    elif types:
        allowed = {cls for classes in types.values() for cls in classes}
        derived = {key: name for key, name in derived.items() if key in chosen}
        chosen = {key: chosen[key] for key in chosen if universe.class_of(key) in allowed}
    excluded = search.exclude(chosen, entry)
    if not chosen:
        search.nothing()
    for pattern, matched in plain_words:
        search.hint(pattern, [index for index in matched if index in chosen])
    ordered = _ordered_by_first(universe, chosen)
    return Selection(
        tuple(ordered),
        tuple(ordered.values()),
        tuple(search.unmatched),
        tuple(search.hints),
        {key: name for key, name in derived.items() if key not in excluded},
        excluded,
    )


def _derived(universe: Universe, types: Mapping[str, Sequence[type[nn.Module]]]) -> dict[int, str]:
    """Return position -> named type, for modules whose type is a subclass of a named one."""
    exact = {cls for classes in types.values() for cls in classes}
    found = {}
    for cls, positions in universe.by_class.items():
        if cls in exact:
            continue
        bases = [base for base in cls.__mro__[1:] if issubclass(base, nn.Module)]
        named = next((name for base in bases for name in types if is_type(base, name)), None)
        if named is not None and named not in _ROOTS:
            found.update({universe.first[id(universe.modules[one])]: named for one in positions})
    return found


def _ordered_by_first(universe: Universe, chosen: dict[int, str]) -> dict[int, str]:
    if universe.aliases:
        first: dict[int, str] = {}
        for key in sorted(chosen):
            first.setdefault(universe.first[id(universe.modules[key])], chosen[key])
        chosen = first
    return {key: chosen[key] for key in sorted(chosen)}


class _Search:
    """Collects what one entry's selectors miss; mutable because it only lives during `select`."""

    def __init__(self, universe: Universe, path: str, suggest: Suggest) -> None:
        self.universe = universe
        self.path = path
        self.suggest = suggest
        self.unmatched: list[Unmatched] = []
        self.hints: list[str] = []

    @staticmethod
    def take(chosen: dict[int, str], positions: Iterable[int], selector: str) -> None:
        if chosen:
            for position in positions:
                chosen.setdefault(position, selector)
        else:
            chosen.update(dict.fromkeys(positions, selector))

    def name(self, key: str, position: int, name: str) -> Sequence[int]:
        found = self.universe.index.get(name)
        if found is None:
            path = f"{self.path}.{key}[{position}]"
            self.report(path, name, "no module has this name", self.universe.names)
            return ()
        return (found,)

    def pattern(self, key: str, position: int, pattern: str) -> Sequence[int]:
        path = f"{self.path}.{key}[{position}]"
        found = matches(pattern, self.universe.names, path=path)
        if not found:
            reason = "no module name starts with a match of this pattern"
            self.report(path, pattern, reason, self.universe.names)
        return found

    def type(self, key: str, position: int, type_name: str) -> list[type[nn.Module]]:
        found = self.universe.classes(type_name)
        if not found:
            present = sorted({cls.__name__ for cls in self.universe.by_class})
            path = f"{self.path}.{key}[{position}]"
            self.report(path, type_name, "no module has this type", present)
        return found

    def exclude(self, chosen: dict[int, str], entry: Entry) -> dict[int, str]:
        """Remove from a choice what excludes match; return position -> what matched."""
        universe = self.universe
        out: dict[int, str] = {}
        for position, name in enumerate(entry.exclude_op_names):
            selector = f"exclude_op_names: {name}"
            self.take(out, self.name("exclude_op_names", position, name), selector)
        for position, pattern in enumerate(entry.exclude_op_names_re):
            selector = f"exclude_op_names_re: {pattern}"
            self.take(out, self.pattern("exclude_op_names_re", position, pattern), selector)
        for position, type_name in enumerate(entry.exclude_op_types):
            for cls in self.type("exclude_op_types", position, type_name):
                self.take(out, universe.by_class[cls], f"exclude_op_types: {type_name}")
        if not out:
            return out
        # A shared module is one module: leaving it out by one name leaves it out.
        excluded: dict[int, str] = {}
        named: dict[int, list[int]] = {}
        for position, selector in out.items():
            first = universe.first[id(universe.modules[position])]
            excluded.setdefault(first, selector)
            named.setdefault(first, []).append(position)
        aliased: set[int] = set()
        for position in list(chosen):
            first = universe.first[id(universe.modules[position])]
            if first in excluded:
                del chosen[position]
                if position not in out:
                    aliased.add(first)
        for first in sorted(aliased):
            names = [universe.names[first], *universe.aliases.get(first, ())]
            self.hints.append(
                f"{self.path}: {excluded[first]} matches {universe.names[named[first][0]]!r}, "
                f"which is one module under the names {', '.join(map(repr, names))}; it is left "
                "out under all of them"
            )
        return excluded

    def hint(self, pattern: str, matched: Iterable[int]) -> None:
        names = self.universe.names
        end = len(pattern)
        longer = [names[index] for index in matched if names[index][end : end + 1] not in ("", ".")]
        if longer:
            more = f" and {len(longer) - 1} more" if len(longer) > 1 else ""
            self.hints.append(
                f"{self.path}.op_names_re: {pattern!r} also selects {longer[0]!r}{more}, because "
                "patterns match from the start and need not reach the end; write "
                f"{pattern + '$'!r} for that name alone"
            )

    def report(self, path: str, value: str, reason: str, candidates: Sequence[str]) -> None:
        near = self.suggest(value, candidates)
        hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
        self.unmatched.append(Unmatched(path, value, near, f"{path}: {value!r}: {reason}{hint}"))

    def nothing(self) -> None:
        message = f"{self.path}: the entry selects no module"
        if not self.unmatched:
            message += "; each selector matches modules, but no module passes all of them"
        self.unmatched.append(Unmatched(self.path, "", (), message))
