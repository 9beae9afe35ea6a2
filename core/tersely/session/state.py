"""A session's state as named tensors and JSON data, put together from its engines, and back."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import attrs
from torch import Tensor

from tersely.engine.state.saver import Parts, Saved, sort_tensors
from tersely.errors import SessionFileError, TerselyError
from tersely.json_value import Json
from tersely.session.engines import Engines
from tersely.shrinking.report import Shrunk

_SOLVED = ("value", "original")


@attrs.frozen(eq=False)
class SavedState:
    """A session's state, understood and checked.

    Attributes:
        steps: optimizer steps so far.
        has_kept_batches: whether calibration kept its batches.
        history: one mapping for each change of masks.
        metrics: name -> value.
        engines: method -> the state of its engine.
        cuts: one record for each time the model became smaller.
        shrinks: what each call of `Session.shrink` removed.
        shrunk_paths: paths of the stages that have ended with shrink.
    """

    steps: int
    has_kept_batches: bool
    history: list[dict[str, Json]]
    metrics: dict[str, float]
    engines: Mapping[str, Saved]
    cuts: list[dict[str, Json]] = attrs.field(factory=list)
    shrinks: list[Shrunk] = attrs.field(factory=list)
    shrunk_paths: list[str] = attrs.field(factory=list)

    def written(self, engines: Engines) -> tuple[dict[str, Tensor], dict[str, Json]]:
        """Return the state as named tensors and JSON data.

        Args:
            engines: those whose state it is.
        """
        tensors: dict[str, Tensor] = {}
        data: dict[str, Json] = {
            "steps": self.steps,
            "kept_batches": self.has_kept_batches,
            "history": [dict(one) for one in self.history],
            "metrics": dict(self.metrics),
            "cuts": [dict(one) for one in self.cuts],
            "shrinks": [one.to_dict() for one in self.shrinks],
            "shrunk_paths": list(self.shrunk_paths),
        }
        for engine in engines:
            saved = self.engines[engine.method]
            tensors.update(engine.grammar.written(saved.parts))
            data[engine.method] = saved.data
        return tensors, data


def understand(
    engines: Engines, tensors: Mapping[str, Tensor], data: Mapping[str, Any]
) -> SavedState:
    """Return a saved state, checked against the engines that will take it over.

    Args:
        engines: those of an attached session of the same plan.
        tensors: the saved tensors.
        data: the saved JSON data.

    Raises:
        SessionFileError: the state belongs to another plan or model; nothing was changed.
    """
    parts = sort_tensors(tensors, {engine.method: engine.grammar for engine in engines})
    _need_numbers(parts)
    with complete_state():
        state = SavedState(
            steps=int(data["steps"]),
            has_kept_batches=bool(data["kept_batches"]),
            history=[dict(one) for one in data["history"]],
            metrics=dict(data["metrics"]),
            cuts=[dict(one) for one in data.get("cuts", [])],
            shrinks=[Shrunk.from_dict(one) for one in data.get("shrinks", [])],
            shrunk_paths=[str(one) for one in data.get("shrunk_paths", [])],
            engines={method: Saved(found, dict(data[method])) for method, found in parts.items()},
        )
        for engine in engines:
            engine.check(state.engines[engine.method], state.steps)
    return state


def _need_numbers(parts: Mapping[str, Parts]) -> None:
    """Refuse weights that an algorithm solved or replaced and that are not finite: no solver does.

    What calibration, training and losses left may be so, because batches may: it is refused
    where it is used, and a session that was saved before can be loaded and calibrated again.
    """
    for places in parts.values():
        for (kind, name), tensors in places.items():
            if kind not in _SOLVED:
                continue
            for tensor in tensors.values():
                if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
                    raise SessionFileError(
                        f"the saved {kind} of {name} is not finite, which no session writes; "
                        "restore the folder from a copy, or compress again",
                        target=name,
                    )


@contextlib.contextmanager
def complete_state() -> Iterator[None]:
    """Turn Python's error about a missing or malformed part of a state into a SessionFileError.

    Raises:
        SessionFileError: a part is missing or is not what it should be.
    """
    try:
        yield
    except TerselyError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise SessionFileError(f"the saved session lacks a part of its state: {error!r}") from error
