"""Saving and restoring a session: what goes into its files and what must fit on the way back."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor, nn

from laconic.errors import AttachError, ConfigError, PlanError, PluginError, SessionFileError
from laconic.planning.plan import Plan
from laconic.registry.descriptors import Json
from laconic.session.mask_state import is_kept, mask_of, write_mask
from laconic.session.storage import StoredSession, read_session, save_session
from laconic.session.versions import check_versions, used_plugins

if TYPE_CHECKING:
    from laconic.session.session import Session

_MASK = "mask:"


def session_state(session: Session) -> tuple[dict[str, Tensor], dict[str, Json]]:
    """Return everything that `restore_state` needs.

    Args:
        session: an attached session.

    Returns:
        Bool masks, True = kept, by ``mask:<target>``, and JSON data.
    """
    tensors = {}
    for handle in session._handles:
        mask = mask_of(handle)
        if mask is not None:
            tensors[_MASK + handle.plan.name] = is_kept(handle, mask)
    data = {
        "steps": session.steps,
        "is_compressed": session._is_compressed,
        "history": list(session.history),
        "metrics": dict(session.metrics),
    }
    return tensors, data


def restore_state(
    session: Session, tensors: Mapping[str, Tensor], data: Mapping[str, Json]
) -> None:
    """Put a saved state in force.

    Args:
        session: a freshly attached session of the same plan.
        tensors: the saved tensors.
        data: the saved JSON data.

    Raises:
        SessionFileError: the state belongs to another plan or model; the session is unchanged.
    """
    handles = {_MASK + handle.plan.name: handle for handle in session._handles}
    for name, kept in tensors.items():
        handle = handles.get(name)
        if handle is None:
            raise SessionFileError(f"the saved session has {name!r}, which its plan does not know")
        shape = handle.plan.shape
        if shape is not None and not _broadcasts(tuple(kept.shape), shape):
            raise SessionFileError(
                f"the saved {name!r} has shape {list(kept.shape)}, which does not fit the model's "
                f"{list(shape)}"
            )
    try:
        steps, is_compressed = int(data["steps"]), bool(data["is_compressed"])
        history, metrics = list(data["history"]), dict(data["metrics"])
    except (KeyError, TypeError, ValueError) as error:
        raise SessionFileError(f"the saved session lacks a part of its state: {error!r}") from error
    for name, kept in tensors.items():
        handle = handles[name]
        device = next(iter(handle.module.parameters()), kept).device
        write_mask(handle, kept.to(device), session._mask_dtype(handle))
    session.steps, session._is_compressed = steps, is_compressed
    session.history, session.metrics = history, metrics


def _broadcasts(shape: tuple[int, ...], full: tuple[int, ...]) -> bool:
    return len(shape) == len(full) and all(
        one in (1, length) for one, length in zip(shape, full, strict=True)
    )


def save(session: Session, directory: str | os.PathLike[str]) -> None:
    """Write a session into a folder.

    Args:
        session: an attached session.
        directory: the folder.

    Raises:
        SessionFileError: the folder cannot be written.
    """
    tensors, data = session_state(session)
    save_session(
        directory,
        tensors=tensors,
        data=data,
        plan=session.plan.to_dict(),
        recipe=dict(session.plan.recipe.document),
        plugins=used_plugins(session.plan),
    )


def load(
    model: nn.Module, directory: str | os.PathLike[str], *, teacher: nn.Module | None
) -> Session:
    """Attach a saved session to a model.

    Args:
        model: a model of the same structure.
        directory: the session's folder.
        teacher: the teacher of distillation stages.

    Raises:
        SessionFileError: the session is damaged or does not fit; the model is untouched.
    """
    from laconic.session.session import Session  # the class that this module serves

    stored = read_session(directory)
    check_versions(stored.plugins, directory)
    plan = _plan_of(stored, directory)
    try:
        session = Session(model, plan, teacher=teacher)
    except AttachError as error:
        raise SessionFileError(f"{directory}: it does not fit this model: {error}") from error
    try:
        session.restore(stored.tensors, stored.data)
    except BaseException:
        session.detach()
        raise
    return session


def _plan_of(stored: StoredSession, directory: str | os.PathLike[str]) -> Plan:
    try:
        return Plan.from_dict(stored.plan)
    except (PlanError, ConfigError, PluginError) as error:
        raise SessionFileError(
            f"{directory}: its plan cannot be used with what is installed now: {error}"
        ) from error
