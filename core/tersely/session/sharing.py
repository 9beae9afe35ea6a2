"""Which modules hold the parameters of targets, so that ones tied or untied later are noticed."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import cached_property

import attrs
from torch import Tensor, nn

from tersely.errors import SessionError
from tersely.instrument.modules.classes import instruments_of
from tersely.planning.targets.owners import Owners
from tersely.session.parameter_memory import Memories, number_of

_Slot = tuple[nn.Module, str]
"""A module and the name of one of its parameters or buffers."""


@attrs.define(eq=False, slots=False)
class Sharing:
    """Who held which parameter when the session was attached; a step may give targets new ones.

    Two targets may become one parameter, or one target two, by an assignment that PyTorch accepts
    like any other. Masks and scales would act on one holder, and be baked into both.

    Attributes:
        owners: the model's parameters and their holders when it was attached.
        instrumented: the instrumented modules.
    """

    owners: Owners
    instrumented: Collection[nn.Module]

    def __attrs_post_init__(self) -> None:
        self._modules = self.owners.universe.distinct
        self._note()

    def _note(self) -> None:
        self._ids = self._identities()
        # In two lists: a tuple for each module would be as many objects for the garbage collector.
        # Keys are asked for by name: what scripted modules have in place of a dict has no iterator.
        self._keys: list[str] = []
        for module in self._modules:
            self._keys.extend(module._parameters.keys())
        self._counts = [len(module._parameters) for module in self._modules]
        # No parameter is kept alive that the model has given up, nor does one get a weak reference:
        # torch.utils.swap_tensors, as in moving a model, takes none that has.
        self._memories = Memories(
            one for module in self._modules for one in module._parameters.values()
        )

    def _identities(self) -> list[int]:
        return [id(one) for module in self._modules for one in module._parameters.values()]

    def need_unchanged(self, call: str) -> None:
        """Refuse to continue if a target's parameter has other holders than when it was attached.

        Args:
            call: the method that was called.

        Raises:
            SessionError: a target's parameter was tied, untied, or replaced by another module's,
                or is gone.
        """
        # Which of them are one object decides, so that equal lists say that nothing has changed.
        if self._identities() != self._ids:
            self._need_unchanged(call, self._modules)
            self._note()

    def need_unchanged_anywhere(self, call: str) -> None:
        """Refuse as `need_unchanged` does, and look at modules that came later as well.

        Args:
            call: the method that was called.

        Raises:
            SessionError: a target's parameter was tied, untied, or replaced by another module's,
                or is gone.
        """
        known = set(self._modules)
        later = [one for one in self.owners.universe.modules[0].modules() if one not in known]
        self._need_unchanged(call, [*self._modules, *later])
        self._note()

    def _need_unchanged(self, call: str, modules: list[nn.Module]) -> None:
        holders: dict[int, list[_Slot]] = {}
        for module in modules:
            for owned in (module._parameters, module._buffers):
                for key, tensor in owned.items():
                    if tensor is not None:
                        holders.setdefault(id(tensor), []).append((module, key))
        before = self._slots_before()
        for slot in self._targets():
            tensor = _tensor(*slot, self._name(slot), call)
            if tensor is None:
                continue
            expected = self._tied.get(slot, (slot,))
            for other in holders.get(id(tensor), ()):
                if other not in expected:
                    raise self._error(call, slot, "became the same parameter as", other, _TIED)
            for other in expected:
                if _held(*other) is not tensor:
                    raise self._error(call, slot, "is no longer the same as", other, _UNTIED)
            place, memory = before.get(id(tensor), (slot, 0))
            if place not in expected and memory and memory == number_of(tensor):
                raise self._error(call, slot, "was replaced by the parameter of", place, _MOVED)

    def _targets(self) -> Iterator[_Slot]:
        for module in self.instrumented:
            for key in instruments_of(module).parameters:
                yield module, key

    @cached_property
    def _tied(self) -> dict[_Slot, tuple[_Slot, ...]]:
        modules = self.owners.universe.modules
        found = {}
        for group in self.owners.groups:
            slots = tuple((modules[position], attribute) for position, attribute in group)
            found.update(dict.fromkeys(slots, slots))
        return found

    def _slots_before(self) -> dict[int, tuple[_Slot, int]]:
        """Return id -> who held the parameter, and its memory: another may have the id by now."""
        holders = (
            module
            for module, count in zip(self._modules, self._counts, strict=True)
            for _ in range(count)
        )
        slots = zip(holders, self._keys, strict=True)
        # A copy of a session has noted no memory.
        memories = self._memories.numbers or [0] * len(self._ids)
        noted = zip(self._ids, slots, memories, strict=True)
        return {identity: (slot, memory) for identity, slot, memory in noted}

    def _name(self, slot: _Slot) -> str:
        module, key = slot
        universe = self.owners.universe
        position = universe.first.get(id(module))
        if position is not None:
            name = universe.names[position]
        else:
            name = next(name for name, one in universe.modules[0].named_modules() if one is module)
        return f"{name}.{key}" if name else key

    def _error(self, call: str, slot: _Slot, what: str, other: _Slot, advice: str) -> SessionError:
        name, its = self._name(slot), self._name(other)
        return SessionError(
            f"{call}() found that {name} {what} {its} after the session was attached, so masks "
            f"and scales would act on other weights than planned; {advice.format(name, its)}",
            target=name,
        )


_TIED = "tie them before tersely.attach(), or give {0} a parameter of its own again"
_UNTIED = "untie them before tersely.attach(), or tie {0} and {1} again"
_MOVED = "assign parameters before tersely.attach(), or put those of {0} and {1} back"


def _held(module: nn.Module, key: str) -> Tensor | None:
    parameter = module._parameters.get(key)
    return module._buffers.get(key) if parameter is None else parameter


def _tensor(module: nn.Module, key: str, name: str, call: str) -> Tensor | None:
    if key not in module._parameters and key not in module._buffers:
        raise SessionError(
            f"{call}() found that {name} is no longer a parameter or buffer, so its mask and "
            "scales act on nothing; reparametrize layers before tersely.attach(), or put it back",
            target=name,
        )
    return _held(module, key)
