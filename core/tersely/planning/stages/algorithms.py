"""Makes the algorithms of stages, and checks that each is what it declares to be."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from tersely import contracts
from tersely.contracts.abilities import Ability
from tersely.contracts.ability_names import PRUNER_ABILITIES, QUANTIZER_ABILITIES, needs_of
from tersely.contracts.kinds import Needs
from tersely.contracts.pruner import Grows, Pruner, Solves
from tersely.contracts.quantizer import Quantizer
from tersely.contracts.whole_model import ScoresModel
from tersely.errors import PluginError
from tersely.json_value import Json
from tersely.registry.descriptors import Descriptor, PrunerInfo, QuantizerInfo
from tersely.registry.implementation import load_implementation
from tersely.registry.kinds import PRUNER, QUANTIZER, Kind
from tersely.registry.record import Registration
from tersely.registry.registry import registry


class PluginWarning(UserWarning):
    """A plugin has something that looks like what it does not declare."""


def make_pruner(name: str, options: Mapping[str, Json], *, place: str = "") -> Pruner:
    """Make a pruner with its options.

    Args:
        name: its name in the registry.
        options: its keyword arguments.
        place: where the document asks for it, for errors.

    Raises:
        PluginError: it cannot be made with these options, lacks a method of an ability that it
            declares, or states needs that its abilities contradict.
    """
    made: Pruner = _make(PRUNER, registry().pruners.record(name), options, place=place or name)
    return made


def make_quantizer(name: str, options: Mapping[str, Json], *, place: str = "") -> Quantizer:
    """Make a quantizer with its options.

    Args:
        name: its name in the registry.
        options: its keyword arguments.
        place: where the document asks for it, for errors.

    Raises:
        PluginError: as in `make_pruner`.
    """
    made: Quantizer = _make(
        QUANTIZER, registry().quantizers.record(name), options, place=place or name
    )
    return made


def is_declared(ability: type[Ability], implementation: object, info: Descriptor) -> bool:
    """Tell whether an algorithm declares an ability, without making it.

    Args:
        ability: the ability.
        implementation: the class that its descriptor names.
        info: its descriptor.
    """
    if ability.__name__ in getattr(info, "abilities", ()):
        return True
    return isinstance(implementation, type) and issubclass(implementation, ability)


def pruner_needs(name: str) -> Needs:
    """Return what a pruner needs: what its descriptor states, or what its abilities say.

    Args:
        name: its name in the registry; its implementation is imported where nothing is stated.
    """
    info = registry().pruners.info(name)
    if info.needs is not None:
        return info.needs
    return needs_of(_inherited(registry().pruners[name], PRUNER_ABILITIES), PRUNER_ABILITIES)


@attrs.frozen
class _Asked:
    """An algorithm that is being made, as errors call it."""

    head: str
    plugin: str
    distribution: str

    def error(self, problem: str) -> PluginError:
        """Return the error for what is wrong with it."""
        return PluginError(
            f"{self.head} {problem}", plugin=self.plugin, distribution=self.distribution
        )


def _make(kind: Kind, record: Registration, options: Mapping[str, Json], *, place: str) -> Any:
    implementation = load_implementation(kind, record)
    info = record.descriptor
    head = f"{kind.name} {info.name!r} of {record.title}"
    asked = _Asked(head, info.name, record.distribution)
    _refuse_halves(implementation, asked)
    try:
        made = implementation(**options)
    except Exception as error:  # foreign code: whatever it raises belongs in the message
        raise PluginError(
            f"{place}: {info.name} could not be made with options {dict(options)}: "
            f"{type(error).__name__}: {error}",
            plugin=info.name,
            distribution=record.distribution,
        ) from error
    if isinstance(info, (PrunerInfo, QuantizerInfo)):
        _check(made, info, asked)
    return made


def _refuse_halves(implementation: object, asked: _Asked) -> None:
    missing: frozenset[str] = getattr(implementation, "__abstractmethods__", frozenset())
    for base in inspect.getmro(implementation) if isinstance(implementation, type) else ():
        for name in sorted(missing):
            if issubclass(base, Ability) and name in vars(base):
                raise asked.error(_half(base, f"{name}()"))


def _half(ability: type[Ability], member: str) -> str:
    return (
        f"declares {ability.__name__} and has no {member}; write it, or do not declare "
        f"{ability.__name__}"
    )


def _check(made: object, info: PrunerInfo | QuantizerInfo, asked: _Asked) -> None:
    table = PRUNER_ABILITIES if isinstance(info, PrunerInfo) else QUANTIZER_ABILITIES
    known = {name: getattr(contracts, name) for name in table}
    for name in info.abilities:
        _adopt(made, known[name], asked)
    declared = _inherited(type(made), table) | set(info.abilities)
    for name in sorted(declared):
        for member in known[name].__annotations__:
            if not hasattr(made, member):
                raise asked.error(_half(known[name], member))
    if isinstance(info, PrunerInfo):
        is_ranking = callable(getattr(made, "importance", None))
        if not is_ranking and not isinstance(made, (ScoresModel, Solves)):
            raise asked.error(
                "has no importance(target), which returns the scores of a target; write "
                "it, or inherit from tersely.contracts.Solves or tersely.contracts.ScoresModel"
            )
    _check_needs(made, info, needs_of(declared, table), asked=asked)
    for ability in known.values():
        if not isinstance(made, ability):
            _warn_of_likeness(made, ability, asked.head)


def _adopt(made: object, ability: type[Ability], asked: _Asked) -> None:
    # Listed in the descriptor: from now on the class counts as one that inherits.
    if isinstance(made, ability):
        return
    for member in sorted(ability.__abstractmethods__):
        if not callable(getattr(made, member, None)):
            raise asked.error(_half(ability, f"{member}()"))
    ability.register(type(made))


def _inherited(implementation: object, table: Mapping[str, Needs]) -> set[str]:
    if not isinstance(implementation, type):
        return set()
    known = (getattr(contracts, name) for name in table)
    return {one.__name__ for one in known if issubclass(implementation, one)}


def _check_needs(
    made: object, info: PrunerInfo | QuantizerInfo, found: Needs, *, asked: _Asked
) -> None:
    if info.needs in (None, found):
        return
    if isinstance(info, QuantizerInfo):
        # The ranges of inputs and outputs come from calibration, and fake quantization can train
        # weights whatever the algorithm declares.
        fits = info.needs == "training" or (found == "nothing" and info.needs == "activations")
    else:
        is_of_activations = not {"parameter", "buffer"} & set(info.target_kinds)
        fits = (info.needs == "training" and isinstance(made, Grows)) or (
            info.needs == "activations" and found == "nothing" and is_of_activations
        )
    if not fits:
        raise asked.error(
            f"states needs={info.needs!r}, and the abilities that it declares need "
            f"{found!r}; leave needs out of its descriptor, and inherit from the abilities in "
            f"tersely.contracts whose methods it has{_likeness_hint(made, info)}"
        )


def _likeness_hint(made: object, info: PrunerInfo | QuantizerInfo) -> str:
    table = PRUNER_ABILITIES if isinstance(info, PrunerInfo) else QUANTIZER_ABILITIES
    for name in table:
        ability = getattr(contracts, name)
        for member in sorted(ability.__abstractmethods__):
            for own in (member, f"{member}s"):
                if not isinstance(made, ability) and callable(getattr(made, own, None)):
                    return f": its {own}() looks like {member}() of {name}"
    return ""


def _warn_of_likeness(made: object, ability: type[Ability], head: str) -> None:
    for name in _likenesses(made, ability):
        warnings.warn(
            f"{head} has a method {name}() that looks like that of {ability.__name__}, which it "
            "does not declare, so it is never called; inherit from "
            f"tersely.contracts.{ability.__name__}, or rename the method",
            PluginWarning,
            stacklevel=5,
        )


def _likenesses(made: object, ability: type[Ability]) -> Iterator[str]:
    # What an ability inherits from another one is reported for that one.
    for name in sorted(ability.__abstractmethods__.intersection(vars(ability))):
        own = getattr(type(made), name, None)
        if inspect.isfunction(own) and _arguments(own) == _arguments(getattr(ability, name)):
            yield name


def _arguments(function: Any) -> list[str]:
    return list(inspect.signature(function).parameters)[1:]
