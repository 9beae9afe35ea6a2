"""Where the instrumented modules are in the model, so that one that was replaced is noticed."""

from __future__ import annotations

from collections.abc import Collection
from functools import cached_property

import attrs
from torch import nn

from tersely.errors import SessionError
from tersely.instrument.shown.lost_writes import need_no_lost_writes
from tersely.planning.selecting.selection import Universe
from tersely.session.sharing import Sharing

_EVERY_STEP = ("step", "calibrate", "compress")
"""Calls that, to be fast, do not look at modules added after the session was attached."""


@attrs.frozen(slots=False, eq=False)
class Places:
    """The modules on the way to every instrumented module, as they were when it was attached.

    Attributes:
        universe: all modules of the model at that time.
        instrumented: the instrumented modules.
        sharing: which of them hold which parameters.
    """

    universe: Universe
    instrumented: Collection[nn.Module]
    sharing: Sharing

    @cached_property
    def _links(self) -> list[tuple[dict[str, nn.Module | None], str, nn.Module]]:
        # Made on first use: most sessions of a test or a one-shot run never need it.
        modules = dict(zip(self.universe.names, self.universe.modules, strict=True))
        names: set[str] = set()
        for name, module in modules.items():
            rest = name if module in self.instrumented else ""
            while rest and rest not in names:
                names.add(rest)
                rest = rest.rpartition(".")[0]
        found = []
        for name in sorted(names):
            parent, _, key = name.rpartition(".")
            found.append((modules[parent]._modules, key, modules[name]))
        return found

    def need_unchanged(self, call: str) -> None:
        """Raise an error if an instrumented module is no longer in the model.

        A wrapped module is still in it, under another name, and continues to work.

        Args:
            call: the method that was called.

        Raises:
            SessionError: a module was replaced or removed, or has the place of another one, or a
                write into what a target shows was lost.
        """
        need_no_lost_writes(self.instrumented)
        self._need_in_place(call)
        if call in _EVERY_STEP:
            self.sharing.need_unchanged(call)
        else:
            self.sharing.need_unchanged_anywhere(call)

    def _need_in_place(self, call: str) -> None:
        if all(children.get(key) is module for children, key, module in self._links):
            return
        now = dict(self.universe.modules[0].named_modules(remove_duplicate=False))
        present = set(now.values())
        for name, module in zip(self.universe.names, self.universe.modules, strict=True):
            if module in self.instrumented and module not in present:
                raise SessionError(
                    f"{call}() found that the module {name!r} was replaced or removed after the "
                    "session was attached, so its masks and scales act on nothing; change the "
                    "model before tersely.attach(), or put the module back",
                    target=name,
                )
            if module in self.instrumented and now.get(name, module) is not module:
                if now[name] not in self.instrumented:
                    continue  # what wraps it
                raise SessionError(
                    f"{call}() found another module of the session at {name!r} than when it was "
                    "attached, so names of masks and scales would mean other modules; put the "
                    "modules back in their order",
                    target=name,
                )
