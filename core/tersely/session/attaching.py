"""Attaching: a recipe or plan put on a model, which begins a session."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from torch import nn

from tersely.document.recipe import Recipe
from tersely.errors import PlanError
from tersely.json_value import Json
from tersely.planning.groups.counted_budgets import need_example_to_count
from tersely.planning.plan import Plan
from tersely.planning.resolve import announce, resolve
from tersely.session.session import Session

_SHOWN = 10  # reasons that an error shows


def attach(
    model: nn.Module,
    recipe: Plan | Recipe | Mapping[str, Json] | str | os.PathLike[str],
    *,
    teacher: nn.Module | None = None,
    example_inputs: Any = None,
) -> Session:
    """Instrument a model in place as a recipe or plan says; all or nothing.

    Args:
        model: the user's model; its parameters, names and checkpoints stay as they are.
        recipe: a plan, a loaded recipe, its data, or the path of its file.
        teacher: the teacher of distillation stages.
        example_inputs: what to run the model with where a stage ends with ``shrink``, says
            ``dependency_groups: auto`` or ``fuse_names: auto``, or has a ``budget`` in parameters
            or operations: a tensor, a tuple or list of arguments, or a mapping of keyword
            arguments.

    Raises:
        ConfigError: the document is wrong.
        PlanError: the document does not fit the model, or reaches no target of it.
        AttachError: a module cannot be instrumented; the model is as it was.
        BrokenPluginError: a plugin the recipe uses cannot be imported.
    """
    if isinstance(recipe, Plan):
        plan, owners = recipe, None
    else:
        plan, owners = resolve(model, recipe, teacher=teacher, example_inputs=example_inputs)
        announce(plan)
    _need_targets(plan)
    need_example_to_count(plan, example_inputs)
    return Session(model, plan, teacher=teacher, example_inputs=example_inputs, owners=owners)


def _need_targets(plan: Plan) -> None:
    if plan.targets:
        return
    reasons = [*(one.message for one in plan.unmatched), *map(str, plan.skipped)]
    shown = "".join(f"\n  {reason}" for reason in reasons[:_SHOWN])
    raise PlanError(
        "the recipe reaches no target of this model, so there is nothing to compress; write "
        f"entries that select modules of it, and see print(tersely.plan(model, recipe)){shown}"
    )
