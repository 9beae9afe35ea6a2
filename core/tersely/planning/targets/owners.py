"""Who owns which tensor: tied parameters are one target under several names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property

import attrs
from torch import Tensor, nn

from tersely.planning.selecting.selection import Universe


@attrs.frozen(slots=False, eq=False)
class Owners:
    """The modules and attributes that hold each parameter and buffer of a model.

    Attributes:
        universe: the model's modules.
    """

    universe: Universe

    def __getstate__(self) -> dict[str, object]:
        # What is derived goes by identities, and the tensors of a copy have others.
        return {"universe": self.universe}

    @cached_property
    def _tied(self) -> dict[int, list[tuple[int, str]]]:
        # Almost every model is without ties, which one comprehension over all tensors shows.
        tensors = [
            id(tensor)
            for module in self.universe.distinct
            for owned in (module._parameters, module._buffers)
            for tensor in owned.values()
            if tensor is not None
        ]
        if len(set(tensors)) == len(tensors):
            return {}
        counts = Counter(tensors)
        tied: dict[int, list[tuple[int, str]]] = {}
        for identity, position, name in self._walk():
            if counts[identity] > 1:
                tied.setdefault(identity, []).append((position, name))
        return tied

    @cached_property
    def is_plain(self) -> bool:
        """Whether every tensor and every module has one name only."""
        return not self._tied and not self.universe.aliases

    @property
    def groups(self) -> Iterable[Sequence[tuple[int, str]]]:
        """First position of the module and attribute of every owner, for each tied tensor."""
        return self._tied.values()

    def _walk(self) -> Iterator[tuple[int, int, str]]:
        modules = self.universe.modules
        for position in sorted(self.universe.first.values()):
            module = modules[position]
            for name, parameter in module._parameters.items():
                if parameter is not None:
                    yield id(parameter), position, name
            for name, buffer in module._buffers.items():
                if buffer is not None:
                    yield id(buffer), position, name

    def of(self, tensor: Tensor) -> Sequence[tuple[int, str]]:
        """Return (first position of the module, attribute) of every owner of a tied tensor.

        Args:
            tensor: a parameter or buffer of the model.

        Returns:
            All owners in model order, or nothing when the tensor has only one.
        """
        return self._tied.get(id(tensor), ())

    def tied_to(self, excluded: Mapping[int, str]) -> dict[int, tuple[str, str]]:
        """Return the tied tensors of some modules.

        Args:
            excluded: first position of a module -> what excludes it.

        Returns:
            Identity of the tensor -> its name there, and what excludes that module.
        """
        if not excluded or not self._tied:
            return {}
        found: dict[int, tuple[str, str]] = {}
        for identity, owners in self._tied.items():
            for position, attribute in owners:
                if position in excluded:
                    module = self.universe.names[position]
                    name = f"{module}.{attribute}" if module else attribute
                    found.setdefault(identity, (name, excluded[position]))
        return found

    def others(self, position: int, target: str, tensor: Tensor | None) -> tuple[str, ...]:
        """Return the other full names of a target.

        Args:
            position: first position of the module it is planned for.
            target: its name there.
            tensor: the parameter or buffer, or None for an input or output.
        """
        aliases = self.universe.aliases
        tied = self._tied.get(id(tensor)) if tensor is not None else None
        if tied is None and position not in aliases:
            return ()
        names = [
            f"{name}.{attribute}" if name else attribute
            for place, attribute in tied or [(position, target)]
            for name in (self.universe.names[place], *aliases.get(place, ()))
        ]
        own = self.universe.names[position]
        return tuple(name for name in names if name != (f"{own}.{target}" if own else target))


def find_tensor(module: nn.Module, name: str) -> Tensor | None:
    """Return a parameter or buffer by its attribute name, or None when it is None.

    Args:
        module: the module to look in, raw: instrumented attributes are not evaluated.
        name: the attribute's name.

    Raises:
        KeyError: the module has no parameter or buffer of this name.
    """
    if name in module._parameters:
        return module._parameters[name]
    return module._buffers[name]
