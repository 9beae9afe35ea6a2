"""Losses with state of their own: made at the first batch, moved, saved and restored.

what a loss has     session.learned()                        a saved session
a parameter         distillation.<target>><link>.loss.<name>  state, and what the optimizer knows
a buffer            not in it                                 state
"""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Container, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from tersely.contracts.loss import StatefulLoss
from tersely.distillation.calling import AskedLoss
from tersely.engine.isolation.foreign import ForeignCall
from tersely.engine.processes import is_distributed, summed
from tersely.engine.state.saver import Parts, Saved, check_moments
from tersely.errors import PluginError, SessionFileError
from tersely.json_value import Json

STATE = "state"
"""The kind of saved tensors that losses have."""

_EXTRA = "_extra_state"  # how torch calls what get_extra_state returns


class LossStates:
    """The stateful losses of a session; mutable, because each is made when it is first needed.

    Attributes:
        modules: ``target>link``, or the target alone -> the loss.
        shapes: the same -> the shapes it was built for, the student's and the teacher's.
    """

    def __init__(self) -> None:
        self.modules: dict[str, StatefulLoss] = {}
        self.shapes: dict[str, tuple[Json, Json]] = {}
        self._built: dict[str, dict[str, torch.Size]] = {}
        self._before: dict[tuple[str, str], Tensor] = {}

    def add(
        self, key: str, loss: AskedLoss, shapes: tuple[Json, Json], device: torch.device
    ) -> StatefulLoss:
        """Make a loss and take it over.

        Args:
            key: ``target>link``, or the target alone.
            loss: the loss, as the config asks for it.
            shapes: of the student's and the teacher's values.
            device: where the student's values are.

        Raises:
            PluginError: it cannot be made for these shapes.
        """
        module = built(key, loss, shapes).to(device)
        self.modules[key], self.shapes[key] = module, shapes
        self._built[key] = _shapes_in(module)
        if is_distributed():
            self._remember(key)
        return module

    def learned(self) -> dict[tuple[str, str], Tensor]:
        """Return every parameter that is learned, by key and name, in the order they were made."""
        return {
            (key, f"loss.{name}"): leaf
            for key, module in self.modules.items()
            for name, leaf in module.named_parameters()
            if leaf.requires_grad
        }

    def share(self) -> None:
        """Bring buffers together that several processes have changed since the last step.

        An element that one process changed has its value everywhere; one that several changed has
        the mean of theirs.

        Raises:
            PluginError: a loss has other tensors, or of other shapes, than when it was made.
        """
        self._need_unchanged()
        if not is_distributed():
            return
        for key, module in self.modules.items():
            for name, buffer in module.named_buffers():
                changed = buffer != self._before[key, name]
                count = summed(changed.to(torch.int64))
                total = summed(torch.where(changed, buffer, torch.zeros_like(buffer)))
                mean = total / count.clamp_min(1)
                buffer.copy_(torch.where(count > 0, mean.to(buffer.dtype), buffer))
            self._remember(key)

    def _remember(self, key: str) -> None:
        for name, buffer in self.modules[key].named_buffers():
            self._before[key, name] = buffer.detach().clone()

    def saved(self) -> tuple[Parts, list[Json]]:
        """Return every tensor that losses have, and the shapes that they were built for.

        Raises:
            PluginError: as in `share`.
        """
        self._need_unchanged()
        parts: Parts = {
            (STATE, key): {
                name: tensor.detach().clone()
                for name, tensor in _tensors_of(type(module).__name__, module).items()
            }
            for key, module in self.modules.items()
        }
        return parts, [[key, *self.shapes[key]] for key in self.modules]

    def _need_unchanged(self) -> None:
        # A saved session is refused where tensors differ from those that build() makes.
        for key, module in self.modules.items():
            found, expected = _shapes_in(module), self._built[key]
            for name in {**expected, **found}:
                if found.get(name) != expected.get(name):
                    had, has = (
                        "is not there" if one is None else f"has shape {list(one)}"
                        for one in (expected.get(name), found.get(name))
                    )
                    raise PluginError(
                        f"the loss of {key}: {name} {has}, and after build() it {had}; make every "
                        "parameter and buffer in build(), in the shape that it keeps",
                        plugin=type(module).__name__,
                    )

    def restore(self, saved: Saved, asked: Mapping[str, AskedLoss], device: torch.device) -> None:
        """Replace all losses by saved ones.

        Args:
            saved: a checked state.
            asked: key -> the loss that the plan asks for.
            device: the model's.
        """
        self.modules, self.shapes = {}, {}
        for key, shapes in _saved_shapes(saved):
            module = self.add(key, asked[key], shapes, device)
            module.load_state_dict(dict(saved.of(STATE, key)))
            if is_distributed():
                self._remember(key)


def built(key: str, loss: AskedLoss, shapes: tuple[Json, Json]) -> StatefulLoss:
    """Return a new object of a stateful loss, built for the shapes of its targets.

    Args:
        key: what seeds its random numbers.
        loss: the loss, as the config asks for it.
        shapes: of the student's and the teacher's values.

    Raises:
        PluginError: it cannot be made for these shapes.
    """
    name = loss.info.name
    failure = (
        f"the loss {name} could not be made for {key}, with options {dict(loss.own_options)} and "
        f"the shapes {shapes[0]} and {shapes[1]}"
    )
    with _seeded(zlib.crc32(key.encode())), ForeignCall(failure, plugin=name):
        module: StatefulLoss = loss.function(**loss.own_options)  # type: ignore[assignment]
        module.build(_tupled(shapes[0]), _tupled(shapes[1]))
    _tensors_of(name, module)
    return module


def _tensors_of(name: str, module: StatefulLoss) -> dict[str, Tensor]:
    """Return the state of a loss, which is to be all tensors.

    Args:
        name: the loss.
        module: its module.

    Raises:
        PluginError: something else is in it.
    """
    state: dict[str, Tensor] = module.state_dict()
    for one, value in state.items():
        if not isinstance(value, Tensor):
            raise PluginError(
                f"the loss {name} keeps a {type(value).__name__} in {one} of its state (its "
                "get_extra_state returns it), but a session saves only tensors; keep it in buffers",
                plugin=name,
            )
    return state


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    # torch.manual_seed would seed devices for good that are not in use yet.
    is_in_use: bool = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]  # untyped
    devices = list(range(torch.cuda.device_count())) if is_in_use else []
    with torch.random.fork_rng(devices=devices):
        torch.default_generator.manual_seed(seed)
        if devices:
            torch.cuda.manual_seed_all(seed)
        yield


def follow(module: StatefulLoss, device: torch.device, optimizer: Any) -> None:
    """Move a loss to the student's device, with what an optimizer remembers of its parameters.

    Args:
        module: the loss; its tensors stay the same objects.
        device: where the student's values are.
        optimizer: what moves its parameters, or None.
    """
    if all(tensor.device == device for tensor in _tensors(module)):
        return
    module.to(device)
    for leaf in module.parameters() if optimizer is not None else ():
        known = optimizer.state.get(leaf, {})
        known.update(
            {
                name: value.to(device)
                for name, value in known.items()
                if isinstance(value, Tensor) and value.shape == leaf.shape and value.ndim
            }
        )


def check_states(saved: Saved, asked: Mapping[str, AskedLoss], targets: Container[str]) -> None:
    """Refuse saved states of losses that the plan does not ask for, or that do not fit them.

    Args:
        saved: the state.
        asked: key -> the loss that the plan asks for.
        targets: the names that saved tensors can belong to.

    Raises:
        SessionFileError: a state is not asked for, incomplete, or of other shapes.
        PluginError: a loss cannot be made for the saved shapes.
    """
    learned: dict[tuple[str, str], Tensor] = {}
    known = dict(_saved_shapes(saved))
    for kind, key in saved.parts:
        if kind == STATE and key not in known:
            raise SessionFileError(
                f"the saved session has tensors of {key}, and no loss there", target=key
            )
    for key, shapes in known.items():
        if key not in asked or key not in targets:
            raise SessionFileError(
                f"the saved session has a loss with state of {key}, which its plan does not ask "
                "for",
                target=key,
            )
        found, module = saved.of(STATE, key), built(key, asked[key], shapes)
        expected = module.state_dict()
        for name in {**expected, **found}:
            one, wanted = found.get(name), expected.get(name)
            # What a loss returns as extra state may grow; its own method takes it back.
            is_free = name.rpartition(".")[2] == _EXTRA
            if one is None or wanted is None or (one.shape != wanted.shape and not is_free):
                raise SessionFileError(
                    f"the saved session has {sorted(found)} of the loss of {key}, and {name!r} is "
                    "missing, unknown or of another shape",
                    target=key,
                )
        learned |= {
            (key, f"loss.{name}"): found[name]
            for name, leaf in module.named_parameters()
            if leaf.requires_grad
        }
    check_moments(lambda some: torch.optim.Adam(list(some.values())), learned, saved)


def _saved_shapes(saved: Saved) -> Iterator[tuple[str, tuple[Json, Json]]]:
    for key, student, teacher in saved.data.get("losses", []):
        yield key, (student, teacher)


def _tensors(module: StatefulLoss) -> Iterator[Tensor]:
    yield from module.parameters()
    yield from module.buffers()


def _shapes_in(module: StatefulLoss) -> dict[str, torch.Size]:
    named = (*module.named_parameters(), *module.named_buffers())
    return {name: tensor.shape for name, tensor in named}


def _tupled(shape: Json) -> Any:
    if not isinstance(shape, (list, tuple)):
        return shape
    return tuple(_tupled(one) for one in shape)


def shape_of(values: object) -> Json:
    """Return the shape of a tensor as JSON, or a list of shapes of several; None of None.

    Args:
        values: a tensor, a tuple of tensors, or None.
    """
    if isinstance(values, Tensor):
        return list(values.shape)
    return [shape_of(one) for one in values] if isinstance(values, tuple) else None
