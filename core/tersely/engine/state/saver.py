"""An engine's state as named tensors and JSON data, and back.

A tensor's name says what it is and of which target::

    <prefix><kind>:<target>           one tensor a target       mask:features.0.weight
    <prefix><kind>:<part>:<target>    several, each of a name   observed:gram:features.0.weight

The prefix is the engine's, empty for pruning. What an optimizer remembers of a learned tensor has
the part ``<moment>/<learned name>``: by name, because readers return tensors in any order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TypeAlias

import attrs
import torch
from torch import Tensor

from tersely.engine.targets.binding import BoundTarget
from tersely.errors import SessionFileError
from tersely.json_value import Json

Parts: TypeAlias = "dict[tuple[str, str], Mapping[str, Tensor]]"
"""(kind, target) -> part -> tensor; the part is empty where there is one tensor a target.

What was read of a file may be unpacked each time it is asked for, so a mask is not kept for long.
"""

MOVED = "moved"
"""The kind of optimizer state."""


@attrs.frozen(eq=False)
class Saved:
    """The state of one engine.

    Attributes:
        parts: its tensors.
        data: everything else, JSON data.
    """

    parts: Parts
    data: dict[str, Json]

    def of(self, kind: str, name: str) -> Mapping[str, Tensor]:
        """Return the tensors of one kind of one target, by part."""
        return self.parts.get((kind, name), {})

    def one(self, kind: str, name: str) -> Tensor | None:
        """Return the one tensor of a kind of a target, or None."""
        return self.of(kind, name).get("")


@attrs.frozen
class Grammar:
    """How the names of one engine's tensors are built.

    Attributes:
        prefix: what they start with; of two that fit, the longer one is meant.
        kinds: kind -> whether its tensors have parts.
    """

    prefix: str
    kinds: Mapping[str, bool]

    def written(self, parts: Parts) -> dict[str, Tensor]:
        """Return tensors by their full names.

        Args:
            parts: an engine's tensors.
        """
        return {
            self.key(kind, name, part): tensor
            for (kind, name), tensors in parts.items()
            for part, tensor in tensors.items()
        }

    def key(self, kind: str, name: str, part: str) -> str:
        """Return the full name of a tensor."""
        middle = f"{part}:" if self.kinds[kind] else ""
        return f"{self.prefix}{kind}:{middle}{name}"

    def read(self, key: str) -> tuple[str, str, str]:
        """Return kind, target and part of a full name.

        Args:
            key: the full name, with the prefix.

        Raises:
            SessionFileError: this engine writes no such name.
        """
        kind, _, rest = key.removeprefix(self.prefix).partition(":")
        has_parts = self.kinds.get(kind)
        part, colon, name = rest.partition(":") if has_parts else ("", ":", rest)
        if has_parts is None or not colon:
            raise unknown(key)
        return kind, name, part


def unknown(key: str) -> SessionFileError:
    """Return the error for a tensor that belongs to another plan.

    Args:
        key: its full name.
    """
    return SessionFileError(
        f"the saved session has {key!r}, which its plan does not know", target=key
    )


def sort_tensors(
    tensors: Mapping[str, Tensor], grammars: Mapping[str, Grammar]
) -> dict[str, Parts]:
    """Return saved tensors by the engine that wrote them.

    Args:
        tensors: a session's tensors, by full name.
        grammars: engine -> how it names its tensors.

    Raises:
        SessionFileError: no engine writes such a name.
    """
    names: dict[str, dict[tuple[str, str], dict[str, str]]] = {engine: {} for engine in grammars}
    longest = sorted(grammars, key=lambda engine: -len(grammars[engine].prefix))
    for key in tensors:
        engine = next((one for one in longest if key.startswith(grammars[one].prefix)), None)
        if engine is None:
            raise unknown(key)
        kind, name, part = grammars[engine].read(key)
        names[engine].setdefault((kind, name), {})[part] = key
    return {
        engine: {place: _Named(tensors, keys) for place, keys in found.items()}
        for engine, found in names.items()
    }


@attrs.frozen(eq=False)
class _Named(Mapping[str, Tensor]):
    """Some of many tensors, by other names."""

    tensors: Mapping[str, Tensor]
    keys_of: Mapping[str, str]

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[self.keys_of[name]]

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys_of)

    def __len__(self) -> int:
        return len(self.keys_of)


def moments_of(
    optimizer: torch.optim.Optimizer | None, learned: Mapping[tuple[str, str], Tensor]
) -> Parts:
    """Return an optimizer's state of each learned tensor.

    Args:
        optimizer: what moves them, or None.
        learned: (target, name) -> learned tensor.
    """
    if optimizer is None:
        return {}
    found: dict[tuple[str, str], dict[str, Tensor]] = {}
    for (target, name), leaf in learned.items():
        for moment, value in optimizer.state.get(leaf, {}).items():
            if value is not None:
                parts = found.setdefault((MOVED, target), {})
                parts[f"{moment}/{name}"] = torch.as_tensor(value).clone()
    return {**found}


def restore_moments(
    optimizer: torch.optim.Optimizer | None,
    learned: Mapping[tuple[str, str], Tensor],
    saved: Saved,
) -> None:
    """Restore an optimizer's state of each learned tensor.

    Args:
        optimizer: what moves them, or None.
        learned: (target, name) -> learned tensor.
        saved: an engine's state.
    """
    if optimizer is None:
        return
    tensors = (one for group in optimizer.param_groups for one in group["params"])
    places = {id(tensor): place for place, tensor in enumerate(tensors)}
    state: dict[int, dict[str, Tensor]] = {}
    for (target, name), leaf in learned.items():
        for part, value in saved.of(MOVED, target).items():
            moment, _, of = part.rpartition("/")
            if of == name:
                state.setdefault(places[id(leaf)], {})[moment] = value
    if state:
        optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def check_moments(
    make: Callable[[Mapping[tuple[str, str], Tensor]], torch.optim.Optimizer],
    learned: Mapping[tuple[str, str], Tensor],
    saved: Saved,
) -> None:
    """Refuse optimizer state that does not fit the learned tensors.

    An optimizer of the same kind makes one step on copies, which shows the state to expect.

    Args:
        make: makes the optimizer of some learned tensors.
        learned: (target, name) -> saved learned tensor.
        saved: an engine's state.

    Raises:
        SessionFileError: something is missing, of another shape or not finite, or no optimizer
            continues from it.
    """
    if not any(saved.of(MOVED, target) for target, _ in learned):
        return
    copies = {key: leaf.detach().clone().requires_grad_() for key, leaf in learned.items()}
    optimizer = make(copies)
    for leaf in copies.values():
        leaf.grad = torch.zeros_like(leaf)
    optimizer.step()
    for (target, name), leaf in copies.items():
        found = {
            moment: value
            for part, value in saved.of(MOVED, target).items()
            for moment, _, of in [part.rpartition("/")]
            if of == name
        }
        known = optimizer.state.get(leaf, {})
        expected = {one: torch.as_tensor(value) for one, value in known.items()}
        for moment in found.keys() | expected.keys() if found else ():
            one, wanted = found.get(moment), expected.get(moment)
            if (
                one is None
                or wanted is None
                or one.shape != wanted.shape
                or not bool(one.isfinite().all())
            ):
                raise SessionFileError(
                    f"the saved session has {sorted(found)} of the optimizer of {name} of "
                    f"{target}, but {moment!r} is missing, has another shape, or is not finite",
                    target=target,
                )
    _need_to_go_on(make(copies), copies, saved)


def _need_to_go_on(
    optimizer: torch.optim.Optimizer, copies: Mapping[tuple[str, str], Tensor], saved: Saved
) -> None:
    # Averages of squares below zero, for one, have the right shape and end in NaN.
    own: Parts = {  # the step changes what an optimizer remembers in place
        place: {part: tensor.clone() for part, tensor in parts.items()}
        for place, parts in saved.parts.items()
        if place[0] == MOVED
    }
    restore_moments(optimizer, copies, Saved(own, saved.data))
    try:
        optimizer.step()
    except (ArithmeticError, RuntimeError, ValueError) as error:  # of a count of steps below zero
        target = next(iter(copies))[0]
        raise SessionFileError(
            f"the saved session has the optimizer of {target} in a state from which it cannot "
            f"continue: {error}",
            target=target,
        ) from error
    for (target, name), leaf in copies.items():
        if not bool(leaf.isfinite().all()):
            raise SessionFileError(
                f"the saved session has the optimizer of {name} of {target} in an unusable state: "
                "the next step makes the tensor infinite or NaN",
                target=target,
            )


def need_shape(kind: str, bound: BoundTarget, tensor: Tensor, shape: tuple[int, ...]) -> None:
    """Refuse a saved tensor of another shape than the model's.

    Args:
        kind: what it is.
        bound: the target it belongs to.
        tensor: the saved tensor.
        shape: the expected shape.

    Raises:
        SessionFileError: the shapes differ.
    """
    if tuple(tensor.shape) != tuple(shape):
        raise SessionFileError(
            f"the saved {kind} tensor of {bound.plan.name} has shape {list(tensor.shape)}, "
            f"expected {list(shape)}",
            target=bound.plan.name,
        )
