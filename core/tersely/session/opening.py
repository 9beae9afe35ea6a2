"""How sessions begin: attached anew, or loaded from where one was saved."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from torch import nn

from tersely.document.recipe import Recipe
from tersely.errors import AttachError, ConfigError, PlanError, PluginError, SessionFileError
from tersely.json_value import Json
from tersely.planning.plan import Plan
from tersely.planning.resolve import plan as make_plan
from tersely.session.session import Session
from tersely.shrinking.recorded import cut_again
from tersely.storage.session_folder import StoredSession, read_session
from tersely.storage.versions import check_versions
from tersely.storage.weights import WEIGHTS, load_weights


def attach(
    model: nn.Module,
    recipe: Plan | Recipe | Mapping[str, Json] | str | os.PathLike[str],
    *,
    teacher: nn.Module | None = None,
) -> Session:
    """Instrument a model in place as a recipe or plan says; all or nothing.

    Args:
        model: the user's model; its parameters, names and checkpoints stay as they are.
        recipe: a plan, a loaded recipe, its data, or the path of its file.
        teacher: the teacher of distillation stages.

    Raises:
        ConfigError: the document is wrong.
        PlanError: the document does not fit the model.
        AttachError: a module cannot be instrumented; the model is as it was.
        BrokenPluginError: a plugin the recipe uses cannot be imported.
    """
    plan = recipe if isinstance(recipe, Plan) else make_plan(model, recipe, teacher=teacher)
    return Session(model, plan, teacher=teacher)


def load_session(
    model: nn.Module, directory: str | os.PathLike[str], *, teacher: nn.Module | None = None
) -> Session:
    """Attach a saved session to a model and continue where it was saved.

    Args:
        model: a model of the same structure, with its own weights loaded. If the session's model
            was shrunk, one of the original size is cut first; load its small weights afterwards.
        directory: the folder that `Session.save` wrote.
        teacher: the teacher of distillation stages.

    Raises:
        SessionFileError: the session is damaged or does not fit the model, which is untouched.
    """
    stored = read_session(directory)
    check_versions(stored.plugins, directory)
    plan = _plan_of(stored, directory)
    undoing = cut_again(model, stored.data.get("cuts", []))
    try:
        session = Session(model, plan, teacher=teacher)
    except AttachError as error:
        undoing.undo()
        raise SessionFileError(f"{directory}: it does not fit this model: {error}") from error
    try:
        session.restore(stored.tensors, stored.data)
    except BaseException:
        session.detach()
        undoing.undo()
        raise
    return session


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
    records = read_session(place).data.get("cuts", [])
    if not records:
        raise SessionFileError(
            f"{folder} holds a session that was not shrunk; call session.shrink(example_inputs) "
            f"before session.save(), or load it with tersely.load_session"
        )
    undoing = cut_again(model, records)
    try:
        load_weights(model, folder / WEIGHTS)
    except BaseException:
        undoing.undo()
        raise
    return model


def _plan_of(stored: StoredSession, directory: str | os.PathLike[str]) -> Plan:
    try:
        return Plan.from_dict(stored.plan)
    except (PlanError, ConfigError, PluginError) as error:
        raise SessionFileError(
            f"{directory}: its plan cannot be used with what is installed now: {error}"
        ) from error
