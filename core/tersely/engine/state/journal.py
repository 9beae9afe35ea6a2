"""The state before a change, noted piece by piece, so that an error can undo all of it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from tersely.engine.targets.binding import BoundTarget
from tersely.engine.targets.stacks import kinds_of, stacks_of
from tersely.instrument.instruments import Instruments
from tersely.instrument.modules.classes import instruments_of, replace_instruments
from tersely.instrument.names import PREFIX, known_flags


class Journal:
    """Notes of what is about to change; mutable, because every note adds to it.

    Used as a context manager around the change: if the block raises, everything that was noted is
    put back, the last note first, and the error propagates. Tensors come back as the very same
    objects with their old values: an optimizer knows those that learn, compiled graphs all.
    """

    def __init__(self) -> None:
        self._undo: list[Callable[[], None]] = []
        self._after: list[Callable[[], None]] = []
        self._values: dict[BoundTarget, Tensor] = {}
        self._buffers: set[tuple[int, str]] = set()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is not None:
            self.undo()

    def undo(self) -> None:
        """Put everything back."""
        while self._undo:
            self._undo.pop()()
        while self._after:
            self._after.pop()()

    def on_undo(self, act: Callable[[], None]) -> None:
        """Do something when the change is undone.

        Args:
            act: what to do.
        """
        self._undo.append(act)

    def after_undo(self, act: Callable[[], None]) -> None:
        """Do something once all of the change is taken back.

        A buffer may have been noted long before it changes, so it is put back last.

        Args:
            act: what to do.
        """
        self._after.append(act)

    def note_attributes(self, owner: Any, *names: str) -> None:
        """Note attributes; of mappings and sets the items, but not changes inside of them.

        Args:
            owner: the object.
            *names: its attributes.
        """
        for name in names:
            value = getattr(owner, name)
            before = copy.copy(value) if isinstance(value, (dict, set, list)) else value
            self._undo.append(_setter(owner, name, before))

    def note_values(self, bound: BoundTarget) -> Tensor:
        """Note the raw values of a target, and return them.

        Args:
            bound: the target.
        """
        if bound not in self._values:
            values = self._values[bound] = bound.dense().clone()
            self._undo.append(lambda: bound.write(values))
        return self._values[bound]

    def note_parameter(self, module: nn.Module, name: str) -> None:
        """Note a parameter that is not a target.

        Args:
            module: the module that holds it.
            name: its name there.
        """
        parameter = module._parameters[name]
        if parameter is not None:
            self.note_tensor(parameter)

    def note_buffer(self, module: nn.Module, name: str, *, is_binary: bool = False) -> None:
        """Note a buffer, also one that does not exist yet.

        Args:
            module: the module that holds it.
            name: its name there.
            is_binary: whether it holds 0 and 1 only, which take an eighth of the memory or less.
        """
        key = (id(module), name)  # what is noted keeps the module
        if key in self._buffers:
            return
        self._buffers.add(key)
        buffer = module._buffers.get(name)
        if buffer is None:
            self._undo.append(partial(_remove, module, name))
        else:
            self._note_values(module, name, buffer, is_binary=is_binary)

    def _note_values(
        self, module: nn.Module, name: str, buffer: Tensor, *, is_binary: bool
    ) -> None:
        # The place of a mask has none, and a large model has many of them.
        values = _values_of(buffer, is_binary=is_binary) if buffer.numel() else None
        self._undo.append(partial(_put_back, module, name, buffer, values))

    def note_masks(self, places: Iterable[tuple[nn.Module, str]]) -> None:
        """Note buffers that hold 0 and 1 only; small ones of one kind in one tensor.

        Args:
            places: each module that holds one, with its name there.
        """
        self._note_together(places, is_binary=True)

    def note_modules(self, modules: Iterable[nn.Module]) -> None:
        """Note everything that tersely added to modules: their steps and reserved buffers.

        Args:
            modules: the modules, instrumented.
        """
        noted, places = [], []
        for module in modules:
            flags = known_flags(module.__dict__)
            names = tuple([name for name in module._buffers if name.startswith(PREFIX)])
            noted.append((module, instruments_of(module), flags, names))
            places += [(module, name) for name in names]
        self._undo.append(partial(_put_modules_back, noted))
        self._note_together(places, is_binary=False)

    def _note_together(self, places: Iterable[tuple[nn.Module, str]], *, is_binary: bool) -> None:
        noted: list[tuple[nn.Module, str, Tensor]] = []
        for module, name in places:
            buffer = module._buffers.get(name)
            if buffer is None:
                self.note_buffer(module, name, is_binary=is_binary)
            elif (key := (id(module), name)) not in self._buffers:
                self._buffers.add(key)
                noted.append((module, name, buffer))
        buffers = [buffer for _, _, buffer in noted]
        kinds, others = kinds_of(buffers)
        for position in others:
            self._note_values(*noted[position], is_binary=is_binary)
        for positions in kinds:
            for some, stack in stacks_of(buffers, positions):
                values = stack.to(torch.bool) if is_binary else stack
                self._undo.append(partial(_put_all_back, [noted[one] for one in some], values))

    def note_optimizer(self, optimizer: torch.optim.Optimizer) -> None:
        """Note the state of an optimizer, and the tensors that it moves.

        Args:
            optimizer: moves what one stage learns.
        """
        state = copy.deepcopy(optimizer.state_dict())
        self._undo.append(lambda: optimizer.load_state_dict(state))
        for group in optimizer.param_groups:
            for tensor in group["params"]:
                self.note_tensor(tensor)
                # The step drops it, and one that is made again needs it.
                self._undo.append(_setter(tensor, "grad", tensor.grad))

    def note_tensor(self, tensor: Tensor) -> None:
        """Note the values of a tensor.

        Args:
            tensor: the tensor.
        """
        self._undo.append(partial(_write, tensor, _values_of(tensor, is_binary=False)))


def _remove(module: nn.Module, name: str) -> None:
    module._buffers.pop(name, None)


def _put_modules_back(
    noted: Sequence[tuple[nn.Module, Instruments, tuple[str, ...], tuple[str, ...]]],
) -> None:
    for module, instruments, flags, names in noted:
        replace_instruments(module, instruments)
        for flag in known_flags(module.__dict__):
            del module.__dict__[flag]
        module.__dict__.update(dict.fromkeys(flags, True))
        for name in [one for one in module._buffers if one.startswith(PREFIX)]:
            if name not in names:
                del module._buffers[name]


def _put_back(module: nn.Module, name: str, buffer: Tensor, values: Tensor | None = None) -> None:
    if values is not None:
        _write(buffer, values)
    module._buffers[name] = buffer


def _put_all_back(noted: Sequence[tuple[nn.Module, str, Tensor]], values: Tensor) -> None:
    for (module, name, buffer), before in zip(noted, values.unbind(), strict=True):
        _put_back(module, name, buffer, before)


def _values_of(tensor: Tensor, *, is_binary: bool) -> Tensor:
    plain = tensor.detach() if tensor.requires_grad else tensor
    return plain.to(torch.bool, copy=True) if is_binary else plain.clone()


def _write(tensor: Tensor, values: Tensor) -> None:
    with torch.no_grad():
        tensor.copy_(values)


def _setter(owner: Any, name: str, value: Any) -> Callable[[], None]:
    return lambda: setattr(owner, name, value)
