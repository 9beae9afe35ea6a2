"""Attributes from which forward reads sizes as numbers, such as a count of heads in a view.

A module's own come first, then those of an object that it holds, as a config.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from itertools import combinations, product
from typing import Any

import attrs
from torch import nn

from tersely.shrinking.cutting.apply import Undoing, is_conv1d
from tersely.shrinking.cutting.held_numbers import can_write_held, held_numbers, write_held
from tersely.shrinking.graph.program import module_of
from tersely.shrinking.proving.predict import Literal

_KNOWN = (nn.RNNBase, nn.MultiheadAttention)
"""Modules whose sizes `follow_sizes` updates."""


@attrs.frozen
class Number:
    """A number that has to change in a module's forward.

    Attributes:
        old: the number.
        new: its new value.
        is_unclear: whether it also means a size that does not change.
    """

    old: int
    new: int
    is_unclear: bool


def follow_literals(
    model: nn.Module,
    literals: Sequence[Literal],
    undoing: Undoing,
    *,
    failed: Mapping[str, int] | None = None,
    sizes: Callable[[], Mapping[str, Mapping[int, set[int]]]] = dict,
) -> dict[str, type[nn.Module]]:
    """Update the attributes that forward uses as sizes.

    An integer of the module that runs the operator, or one in a tuple, with the value of a literal
    that has to change, takes the new value; the proof shows whether that was right. Where several
    attributes have that value, or it also means something that stays, one choice after the
    other is tried, and so are attributes from which forward may compute the literal, as
    ``heads + 2``: those that are the size of a tensor which changes in the module. A number of an
    object that modules hold, as a config, changes where it does for all modules of one class.

    Args:
        model: the model.
        literals: the numbers of the program that depend on sizes.
        undoing: remembers the attributes.
        failed: module -> the number of choices that failed the proof.
        sizes: returns, for each module, the old and new sizes of its tensors.

    Returns:
        The modules whose attributes were set, or that have more choices, and their classes.
    """
    wanted: dict[str, dict[int, set[int]]] = {}
    for literal in literals:
        numbers = wanted.setdefault(module_of(literal.node), {})
        numbers.setdefault(literal.old, set()).add(literal.new)
    changes = cache(lambda path: _all_changes(wanted.get(path, {}), sizes().get(path, {})))
    chosen: dict[str, Choice] = {}
    written: dict[str, type[nn.Module]] = {}
    for path, numbers in wanted.items():
        module = model.get_submodule(path)
        if isinstance(module, _KNOWN) or is_conv1d(module):
            continue
        changing = _changing(numbers)
        own = _own_count(module)
        if own is not None:
            for one in changing:
                if getattr(module, own) == one.old and not one.is_unclear:
                    undoing.set_attribute(module, own, one.new)
            continue
        place = (failed or {}).get(path, 0)
        choices = _choices(module, changing, ())
        if changing and (place or not choices):
            held = _held(model, path, changes)
            choices = _choices(module, changing, _changing(sizes().get(path, {})), held)
        if place < len(choices):
            chosen[path] = choices[place]
            written[path] = type(module)
    for path, choice in chosen.items():
        module = model.get_submodule(path)
        for name, one in choice:
            if "." in name:
                write_held(model, module, name, one.new, undoing)
            else:
                value = _replaced(getattr(module, name), one.old, one.new)
                undoing.set_attribute(module, name, value)
    return written


def _all_changes(
    numbers: Mapping[int, set[int]], sizes: Mapping[int, set[int]]
) -> dict[int, Number]:
    """What each number of a module becomes, as a literal or else as a size."""
    return {one.old: one for one in (*_changing(sizes), *_changing(numbers))}


def _held(model: nn.Module, path: str, changes: Callable[[str], Mapping[int, Number]]) -> Choice:
    """Numbers in an object that a module holds, which change for all modules of its class."""
    module, own = model.get_submodule(path), changes(path)
    found = []
    for name, number in held_numbers(module).items():
        if number not in own:
            continue
        attribute = name.partition(".")[0]
        held = getattr(module, attribute)
        peers = [
            other
            for other, one in model.named_modules()
            if type(one) is type(module) and getattr(one, attribute, None) is held
        ]
        becoming = {changes(other)[number].new for other in peers if number in changes(other)}
        is_alike = len(becoming) == 1 and all(number in changes(other) for other in peers)
        if is_alike and can_write_held(module, name):
            found.append((name, own[number]))
    return tuple(found)


def _changing(numbers: Mapping[int, set[int]]) -> list[Number]:
    """The numbers with a single new value."""
    found = []
    for old, values in numbers.items():
        changed = values - {old}
        if len(changed) == 1:
            found.append(Number(old, changed.pop(), is_unclear=old in values))
    return found


def _own_count(module: nn.Module) -> str | None:
    """The number that a literal of a torch module means."""
    if isinstance(module, nn.modules.conv._ConvNd):
        return "groups"
    return "num_groups" if isinstance(module, nn.GroupNorm) else None


Choice = tuple[tuple[str, Number], ...]
"""Attributes to set, with the old and new value of the number in them."""


def _choices(
    module: nn.Module, numbers: Sequence[Number], others: Sequence[Number], held: Choice = ()
) -> list[Choice]:
    """The possible changes, the likeliest first: for each number some attributes, or none.

    Args:
        module: the module.
        numbers: those that have to change.
        others: sizes that change, from which forward may compute them.
        held: numbers that change of objects which the module holds.
    """
    explained = any("heads" in name for one in numbers for name in _names(module, one.old))
    options = [own for one in numbers if len(own := _options(module, one, explained)) > 1]
    ranked = [
        (sum(places), sum((own[i] for own, i in zip(options, places, strict=True)), ()))
        for places in product(*(range(len(own)) for own in options))
    ]
    if not options:
        ranked = []
    first = min(ranked, default=(0, ()), key=lambda one: one[0])[1]
    sized = [(name, one) for one in others for name in _names(module, one.old)]
    heads = tuple(pair for pair in sized if "heads" in pair[0])
    clear = tuple(pair for pair in sized if pair in heads or not pair[1].is_unclear)
    pairs = combinations(clear, 2) if len(clear) <= _PAIRED else ()
    held_heads = tuple(pair for pair in held if "head" in pair[0])
    both = [(*heads, *held_heads), (*sized, *held), *((pair,) for pair in held)]
    with_held = both if held else []
    others_clear = [pair for pair in clear if pair not in first] if first else []
    with_one = [(*first, pair) for pair in others_clear][:_PAIRED]
    with_all = (*first, *others_clear) if len(others_clear) > 1 else ()
    singles = [(pair,) for pair in sized]
    derived = [heads, *with_held, *with_one, *singles, with_all, *pairs, clear]
    ranked += [(cost, choice) for cost, choice in enumerate(derived, 1) if choice]
    ranked.sort(key=lambda one: one[0])
    return list(dict.fromkeys(choice for _, choice in ranked))[:_TRIED]


_TRIED = 8
"""The most choices of a module that are tried."""

_PAIRED = 3
"""The most attributes for which pairs are tried before all together."""


def _options(module: nn.Module, number: Number, explained: bool) -> list[Choice]:
    """The sets of attributes that may be a number: single ones, none, or several; heads first.

    An attribute that has the same value by coincidence, such as a limit, must not change. If a
    number of heads changes, which explains most numbers, the others are unchanged at first.
    """
    names = _names(module, number.old)
    heads = tuple(name for name in names if "heads" in name)
    alone = [(name,) for name in sorted(names, key=lambda name: name not in heads)]
    together = [] if number.is_unclear else [names]
    some = [one for one in dict.fromkeys([heads, *alone, *together]) if one]
    first = some[: bool(heads) or not explained]
    return [tuple((name, number) for name in one) for one in [*first, (), *some[len(first) :]]]


def _names(module: nn.Module, number: int) -> tuple[str, ...]:
    return tuple(name for name, value in vars(module).items() if _holds(value, number))


def _holds(value: Any, number: int) -> bool:
    if isinstance(value, tuple) and all(type(one) is int for one in value):
        return value.count(number) == 1
    return type(value) is int and value == number


def _replaced(value: Any, old: int, new: int) -> Any:
    if isinstance(value, tuple):
        return type(value)(new if one == old else one for one in value)
    return new


def count_failures(
    failed: dict[str, int], written: Mapping[str, type[nn.Module]], suspects: Iterable[str]
) -> None:
    """Let modules whose choice failed, and others of their class, try the next one.

    Args:
        failed: module -> how many choices have failed; updated.
        written: the modules whose attributes were set, and their classes.
        suspects: the modules around the failure.
    """
    classes = {written[path] for path in suspects}
    for path, cls in written.items():
        if cls in classes:
            failed[path] = failed.get(path, 0) + 1
