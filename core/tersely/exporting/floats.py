"""The floating-point tensors of a finished model, each computed when it is read."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor, nn

from tersely.errors import ExportError, Refusal
from tersely.instrument.folding import NORMS
from tersely.instrument.instruments import Instruments
from tersely.instrument.modules.classes import instruments_of, is_sharded
from tersely.instrument.names import INSTRUMENTS, PREFIX
from tersely.instrument.transforms import processed

Value = TypeVar("Value")


class Computed(Mapping[str, Value]):
    """A mapping whose values are computed on each read, so that they are never all in memory.

    Args:
        makers: the functions that compute them.
    """

    def __init__(self, makers: Mapping[str, Callable[[], Value]]) -> None:
        self._makers = dict(makers)

    def __getitem__(self, name: str) -> Value:
        return self._makers[name]()

    def __iter__(self) -> Iterator[str]:
        return iter(self._makers)

    def __len__(self) -> int:
        return len(self._makers)


def floats_of(
    model: nn.Module,
    integers: Mapping[nn.Module, Collection[str]],
    *,
    norms: Mapping[nn.Module, nn.Module],
) -> Mapping[str, Tensor]:
    """Return the tensors of a finished model that are not integers, under the user's names.

    Args:
        model: the session's model, attached or finalized.
        integers: modules -> names of their tensors that are stored as integers.
        norms: layers of a finished model -> the batch norm folded into each, which keeps its
            tensors.

    Returns:
        Name -> detached tensor, computed when it is read: masked, with folded norms in their
        layers.

    Raises:
        ExportError: a parameter is sharded over processes.
    """
    sharded = [
        Refusal("it is sharded over processes; gather the model before exporting", name)
        for name, parameter in model.named_parameters()
        if is_sharded(parameter)
    ]
    if sharded:
        raise ExportError(sharded)
    makers: dict[str, Callable[[], Tensor]] = {}
    settled = set(norms.values())
    for path, module in model.named_modules(remove_duplicate=False):
        instruments = instruments_of(module) if INSTRUMENTS in module.__dict__ else Instruments()
        if instruments.is_folded and isinstance(module, NORMS) and module not in settled:
            continue
        skipped = {*integers.get(module, ()), *module._non_persistent_buffers_set}
        for name in (*module._parameters, *module._buffers):
            if name in skipped or name.startswith(PREFIX):
                continue
            make = _maker(module, name, is_changed=name in instruments.parameters)
            if make is not None:
                makers[f"{path}.{name}" if path else name] = make
    return Computed(makers)


def _maker(module: nn.Module, name: str, *, is_changed: bool) -> Callable[[], Tensor] | None:
    raw = raw_tensor(module, name)
    if raw is not None:
        return partial(_value, module, name) if is_changed else raw.detach
    value = value_in_force(module, name) if is_changed else None
    return None if value is None else value.detach


def _value(module: nn.Module, name: str) -> Tensor:
    value = value_in_force(module, name)
    assert value is not None  # only a name without a tensor of its own may have no value
    return value.detach()


def raw_tensor(module: nn.Module, name: str) -> Tensor | None:
    """Return a parameter or buffer as the module stores it.

    Args:
        module: the module.
        name: the tensor's name in it.
    """
    raw: Tensor | None = module._parameters.get(name)
    return module._buffers.get(name) if raw is None else raw


def value_in_force(module: nn.Module, name: str) -> Tensor | None:
    """Return a tensor of an instrumented module as forward computes with it.

    Args:
        module: the module.
        name: the tensor's name in it.

    Returns:
        The value, or None if the module has none, such as a missing bias.
    """
    raw = raw_tensor(module, name)
    with torch.no_grad():
        if raw is not None:
            return processed(module, name, raw)
        chain = instruments_of(module).parameters[name]
        of_nothing = getattr(chain[0], "of_nothing", None) if chain else None
        value: Tensor | None = of_nothing(module) if of_nothing is not None else None
        if value is not None:
            for step in chain[1:]:
                value = getattr(step, "settled", step)(module, value)
        return value
