"""Loading: a saved session attached to a model, which is cut again, and its batches given back."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import nn

from tersely.calibration.kept_batches import stages_that_look
from tersely.engine.observation.batches import Batches
from tersely.engine.observation.padding import PaddingMask
from tersely.errors import (
    AttachError,
    ConfigError,
    PlanError,
    PluginError,
    SessionFileError,
    TerselyError,
)
from tersely.json_value import Json
from tersely.planning.plan import Plan
from tersely.session.session import Session
from tersely.shrinking.cutting.apply import Undoing
from tersely.shrinking.cutting.recorded import cut_again
from tersely.storage.json_file import check_shape
from tersely.storage.session_folder import INDEX, StoredSession, read_session, read_session_data
from tersely.storage.versions import check_versions
from tersely.storage.weights import WEIGHTS, load_weights


def load_session(
    model: nn.Module,
    directory: str | os.PathLike[str],
    *,
    teacher: nn.Module | None = None,
    example_inputs: Any = None,
) -> Session:
    """Attach a saved session to a model and continue where it was saved.

    Args:
        model: a model of the same structure, with its own weights loaded. If the session's model
            was shrunk, one of the original size is cut first; load its small weights afterwards.
        directory: the folder that `Session.save` wrote.
        teacher: the teacher of distillation stages.
        example_inputs: as for `attach`.

    Raises:
        SessionFileError: the session is damaged or does not fit the model, which is untouched.
    """
    stored = _checked_session(directory)
    check_versions(stored.plugins, directory)
    plan = _plan_of(stored, directory)
    undoing = cut_again(model, stored.data.get("cuts", []))
    try:
        session = Session(model, plan, teacher=teacher, example_inputs=example_inputs)
    except (AttachError, PlanError, *_UNUSABLE) as error:
        undoing.undo()
        if isinstance(error, PluginError):
            raise
        reason = error if isinstance(error, TerselyError) else _named(error)
        raise SessionFileError(
            f"{directory}: it does not fit this model: {reason}",
            path=directory,
            target=getattr(error, "target", None),
        ) from error
    try:
        session.restore(stored.tensors, stored.data)
    except BaseException as error:
        session.detach()
        undoing.undo()
        index = Path(directory) / INDEX
        if isinstance(error, SessionFileError):
            raise SessionFileError(f"{index}: {error}", path=index, target=error.target) from error
        if isinstance(error, _UNUSABLE) and not isinstance(error, TerselyError):
            raise SessionFileError(
                f"{index} does not hold a state that can be restored: {_named(error)}; {_ADVICE}",
                path=index,
            ) from error
        raise
    return session


_ADVICE = "restore it from a copy or save the session again"

_SIZES: Json = {"type": "array", "items": {"type": "integer", "minimum": 0}}
_ROWS: Json = {"type": ["array", "null"], "items": _SIZES}
_POSITIONS: Json = {"type": "array", "items": {"anyOf": [{"type": "null"}, _SIZES]}}
_CUTS: Json = {
    "type": "object",
    "required": ["tensors", "attributes"],
    "properties": {
        "tensors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["name", "before", "after", "kept", "columns"],
                "properties": {
                    "name": {"type": "string"},
                    "before": _SIZES,
                    "after": _SIZES,
                    "kept": _POSITIONS,
                    "columns": _ROWS,
                },
            },
        },
        "attributes": {
            "type": "array",
            "items": {"type": "array", "minItems": 3, "maxItems": 3},
        },
    },
}

# What is taken over as it is; the rest of a state is checked by those who restore it.
_DATA: Json = {
    "required": ["steps", "kept_batches", "history", "metrics"],
    "properties": {
        "steps": {"type": "integer", "minimum": 0},
        "kept_batches": {"type": "boolean"},
        "history": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["step", "event", "sparsity"],
                "properties": {
                    "step": {"type": "integer"},
                    "event": {"type": "string"},
                    "sparsity": {"type": "number"},
                },
            },
        },
        "metrics": {"type": "object", "additionalProperties": {"type": "number"}},
        "cuts": {"type": "array", "items": _CUTS},
        "shrinks": {"type": "array", "items": {"type": "object"}},
        "shrunk_paths": {"type": "array", "items": {"type": "string"}},
    },
}
_TAKEN: Json = {
    "properties": {
        "data": _DATA,
        "plugins": {
            "items": {
                "type": "object",
                "required": ["kind", "name", "distribution", "version"],
                "additionalProperties": {"type": ["string", "null"]},
            }
        },
    }
}

# What reading a state raises where a part is missing or of another type, shape or length.
_UNUSABLE = (AttributeError, LookupError, RuntimeError, StopIteration, TypeError, ValueError)


def _named(error: BaseException) -> str:
    if isinstance(error, KeyError):
        return f"there is no {error}"
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _checked_session(directory: str | os.PathLike[str]) -> StoredSession:
    stored = read_session(directory)
    taken = {"data": stored.data, "plugins": stored.plugins}
    check_shape(taken, _TAKEN, place=Path(directory) / INDEX, advice=_ADVICE)
    return stored


def load_shrunk(model: nn.Module, directory: str | os.PathLike[str]) -> nn.Module:
    """Give a freshly built model of the original size the shapes and weights of a shrunk one.

    Args:
        model: the model as it was before pruning; changed in place.
        directory: the folder that `Session.save` wrote after `Session.shrink`, or the output of a
            run whose model was shrunk.

    Returns:
        The model.

    Raises:
        SessionFileError: nothing was shrunk, the folder is damaged, or it is of another model,
            which is as it was.
    """
    folder = Path(directory)
    place = folder / "session" if (folder / "session").is_dir() else folder
    if not (records := _checked_session(place).data.get("cuts", [])):
        raise SessionFileError(
            f"{folder} holds a session that was not shrunk; call session.shrink(example_inputs) "
            "before session.save(), or load it with tersely.load_session",
            path=folder,
        )
    undoing = cut_again(model, records)
    try:
        load_weights(model, folder / WEIGHTS)
    except BaseException:
        undoing.undo()
        raise
    return model


def cut_as_saved(model: nn.Module, directory: str | os.PathLike[str]) -> Undoing:
    """Give a model of the original size the shapes that a saved session's model had.

    Args:
        model: the model; one that was never shrunk stays as it is.
        directory: the folder that `Session.save` wrote.

    Returns:
        What puts the model back.

    Raises:
        SessionFileError: the session is damaged, or is that of another model, which is as it was.
    """
    data = read_session_data(directory)
    check_shape({"data": data}, _TAKEN, place=Path(directory) / INDEX, advice=_ADVICE)
    return cut_again(model, data.get("cuts", []))


def _plan_of(stored: StoredSession, directory: str | os.PathLike[str]) -> Plan:
    try:
        return Plan.from_dict(stored.plan)
    except (PlanError, ConfigError, PluginError, *_UNUSABLE) as error:
        reason = error if isinstance(error, TerselyError) else _named(error)
        raise SessionFileError(
            f"{directory}: its plan cannot be used with what is installed now: {reason}",
            path=directory,
        ) from error


def needs_batches(session: Session) -> bool:
    """Tell whether something is still to be compressed that may ask for calibration batches.

    Args:
        session: a session that was restored.
    """
    return bool(stages_that_look(session._engines.all, session.steps))


def give_batches(
    session: Session, batches: Iterable[Any], *, mask: PaddingMask | None = None
) -> None:
    """Keep batches as `Session.calibrate` does, and leave what it has observed as it was restored.

    Args:
        session: a session that was restored.
        batches: the batches of its calibration; read once.
        mask: which positions of a batch are data; see `Session.calibrate`.
    """
    session._context.batches = Batches(tuple(batches), None, mask)
