"""The arguments of a module's forward, as addresses name them."""

from __future__ import annotations

import inspect
from weakref import WeakKeyDictionary

import attrs
from torch import nn

from tersely.planning.selecting.classes import original_class

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


@attrs.frozen
class Signature:
    """What forward accepts, self not counted.

    Attributes:
        positional: names of the arguments that have a position, in order.
        keyword_only: names of the arguments that have none.
        has_var_positional: whether ``*args`` follows.
        has_var_keyword: whether ``**kwargs`` follows.
        defaults: argument name -> default value.
    """

    positional: tuple[str, ...]
    keyword_only: tuple[str, ...]
    has_var_positional: bool
    has_var_keyword: bool
    defaults: dict[str, object] = attrs.field(factory=dict, eq=False)

    def index_of(self, name: str) -> int | None:
        """Return the position of a named argument, or None when it has none."""
        return self.positional.index(name) if name in self.positional else None

    def problem(self, key: int | str | None) -> str | None:
        """Return why an address key cannot be an argument, or None when it can.

        Args:
            key: the key of an input address.
        """
        if key is None:
            return None
        if isinstance(key, int):
            if key < len(self.positional) or self.has_var_positional:
                return None
            count = len(self.positional)
            if count == 0:
                return "forward takes no positional arguments"
            last = f" to {count - 1}" if count > 1 else ""
            return f"forward has no argument {key}; those with a position are 0{last}"
        if key in self.positional or key in self.keyword_only or self.has_var_keyword:
            return None
        names = ", ".join([*self.positional, *self.keyword_only]) or "none"
        return f"forward has no argument of this name; it has: {names}"


def signature_of(module: nn.Module) -> Signature:
    """Return the signature of a module's own forward."""
    cls = original_class(type(module))
    found = _known.get(cls)
    if found is None:
        found = _known[cls] = _signature(cls)
    return found


# Weak, because the classes of a notebook's cells come and go.
_known: WeakKeyDictionary[type[nn.Module], Signature] = WeakKeyDictionary()


def _signature(cls: type[nn.Module]) -> Signature:
    parameters = list(inspect.signature(cls.forward).parameters.values())
    if parameters and parameters[0].kind in _POSITIONAL:
        del parameters[0]  # self; forward(*args) takes it among the others
    kinds = {parameter.kind for parameter in parameters}
    return Signature(
        tuple(p.name for p in parameters if p.kind in _POSITIONAL),
        tuple(p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY),
        inspect.Parameter.VAR_POSITIONAL in kinds,
        inspect.Parameter.VAR_KEYWORD in kinds,
        {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty},
    )
