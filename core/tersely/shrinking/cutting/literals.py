"""Attributes from which forward reads sizes as numbers, such as a count of heads in a view."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import nn

from tersely.shrinking.cutting.apply import Undoing, is_conv1d
from tersely.shrinking.graph.program import module_of
from tersely.shrinking.proving.predict import Literal

_KNOWN = (nn.RNNBase, nn.MultiheadAttention)
"""Modules whose sizes `follow_sizes` knows."""


def follow_literals(
    model: nn.Module,
    literals: Sequence[Literal],
    undoing: Undoing,
    *,
    failed: Mapping[str, int] | None = None,
) -> dict[str, type[nn.Module]]:
    """Update attributes from which forward reads sizes as numbers.

    An integer of the module that runs the operator, or one in a tuple, with the value of a literal
    that has to change, takes the new value; the proof shows whether that was right. Where several
    attributes have that value, or it also stands for something that stays, one choice after the
    other is tried.

    Args:
        model: the model.
        literals: numbers of the program that follow sizes.
        undoing: remembers the attributes.
        failed: module -> how many choices have failed the proof.

    Returns:
        The modules of which attributes were written, and their classes.
    """
    wanted: dict[tuple[str, int], set[int]] = {}
    for literal in literals:
        wanted.setdefault((module_of(literal.node), literal.old), set()).add(literal.new)
    written: dict[str, type[nn.Module]] = {}
    for (path, old), values in wanted.items():
        module = model.get_submodule(path)
        changed = values - {old}
        if len(changed) != 1 or isinstance(module, _KNOWN) or is_conv1d(module):
            continue
        [new] = changed
        own = _own_count(module)
        if own is not None:
            if getattr(module, own) == old and old not in values:
                undoing.set_attribute(module, own, new)
            continue
        choices = _choices(module, old, is_unclear=old in values)
        place = (failed or {}).get(path, 0)
        for name in choices[place] if place < len(choices) else ():
            undoing.set_attribute(module, name, _replaced(getattr(module, name), old, new))
            written[path] = type(module)
    return written


def _own_count(module: nn.Module) -> str | None:
    """The one number that a literal of torch's own module stands for."""
    if isinstance(module, nn.modules.conv._ConvNd):
        return "groups"
    return "num_groups" if isinstance(module, nn.GroupNorm) else None


def _choices(module: nn.Module, old: int, *, is_unclear: bool) -> list[tuple[str, ...]]:
    """Attributes that may be a number, together or alone; those that are called heads come first.

    Args:
        module: the module.
        old: the number.
        is_unclear: whether the number also stands for something that stays.
    """
    names = tuple(name for name, value in vars(module).items() if _holds(value, old))
    heads = tuple(name for name in names if "heads" in name)
    together = [heads, *([] if is_unclear else [names])]
    alone = [(name,) for name in sorted(names, key=lambda name: name not in heads)]
    return [one for one in dict.fromkeys([*together, *alone]) if one]


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
    """Let modules of which a choice failed, and others of their class, try the next one.

    Args:
        failed: module -> how many choices have failed; updated.
        written: the modules of which attributes were written, and their classes.
        suspects: those around the failure.
    """
    classes = {written[path] for path in suspects}
    for path, cls in written.items():
        if cls in classes:
            failed[path] = failed.get(path, 0) + 1
