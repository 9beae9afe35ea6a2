"""From a recipe and a model to a Plan: pure, every problem at once, nothing touched."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from typing import Any

import attrs
from torch import nn

from tersely.document.load import load_recipe
from tersely.document.recipe import Recipe
from tersely.errors import PlanError
from tersely.json_value import Json
from tersely.planning.fusing.auto_in_recipe import fuse_automatically
from tersely.planning.groups.auto_groups import group_automatically
from tersely.planning.groups.kept_by_shrinking import hint_at_norms
from tersely.planning.plan import Plan
from tersely.planning.selecting.layer_ids import spell_layers
from tersely.planning.selecting.obstacles import need_no_flat_parameters
from tersely.planning.selecting.selection import Universe
from tersely.planning.stages.checks import check_plan
from tersely.planning.stages.draft import Draft
from tersely.planning.stages.stage import plan_stage
from tersely.planning.targets.channels import follow_channels
from tersely.planning.targets.joined import join_targets
from tersely.planning.targets.losses import class_dimension_warnings
from tersely.planning.targets.owners import Owners
from tersely.planning.targets.templates import Templates
from tersely.registry.registry import registry


class PlanWarning(UserWarning):
    """Something in a plan has no effect, such as a name that is not in the model."""


def plan(
    model: nn.Module,
    recipe: Recipe | Mapping[str, Json] | str | os.PathLike[str],
    *,
    teacher: nn.Module | None = None,
    example_inputs: Any = None,
) -> Plan:
    """Resolve a recipe against a model; the model is not touched.

    Args:
        model: the model to compress; its parameters may be on the meta device.
        recipe: a loaded recipe, its data, or the path of its file.
        teacher: the teacher that distillation links to; without it links are not checked.
        example_inputs: what to run the model with where a stage says ``dependency_groups: auto``
            or ``fuse_names: auto``: a tensor, a tuple or list of arguments, or a mapping of keyword
            arguments.

    Returns:
        One TargetPlan per target, and everything that matched nothing or lost to another entry.

    Raises:
        ConfigError: the document is wrong; every problem at once.
        PlanError: the document does not fit the model; every problem at once.
        BrokenPluginError: a plugin the recipe uses cannot be imported.
    """
    resolved, _ = resolve(model, recipe, teacher=teacher, example_inputs=example_inputs)
    announce(resolved)
    return resolved


def resolve(
    model: nn.Module,
    recipe: Recipe | Mapping[str, Json] | str | os.PathLike[str],
    *,
    teacher: nn.Module | None = None,
    example_inputs: Any = None,
) -> tuple[Plan, Owners]:
    """Resolve a recipe as `plan` does, without warnings about what has no effect.

    Args:
        model: as for `plan`.
        recipe: as for `plan`.
        teacher: as for `plan`.
        example_inputs: as for `plan`.

    Returns:
        The plan, and the model's modules and tensors by name, found on the way.

    Raises:
        ConfigError: the document is wrong; every problem at once.
        PlanError: the document does not fit the model; every problem at once.
        BrokenPluginError: a plugin the recipe uses cannot be imported.
    """
    for role, module in (("model", model), ("teacher", teacher)):
        if not isinstance(module, nn.Module) and (role == "model" or module is not None):
            raise PlanError(f"the {role} must be a torch.nn.Module, found {type(module).__name__}")
    if not isinstance(recipe, Recipe):
        recipe = load_recipe(recipe)
    universe = Universe.of(model)
    need_no_flat_parameters(universe)
    owners = Owners(universe)
    draft = Draft(universe, owners, Templates(registry().module_settings()), recipe)
    for number in range(len(recipe.stages)):
        plan_stage(draft, number)
    spell_layers(draft)
    group_automatically(draft, example_inputs)
    hint_at_norms(draft, example_inputs)
    fuse_automatically(draft, example_inputs)
    resolved = join_targets(draft.finish(), draft)
    check_plan(resolved, draft, teacher)
    if recipe.strict:
        draft.problems.extend(str(one) for one in resolved.unmatched)
    draft.refuse_problems()
    resolved = attrs.evolve(resolved, hints=tuple(draft.hints))  # the checks have added theirs
    return follow_channels(resolved, draft), owners


def announce(resolved: Plan) -> None:
    """Warn the caller's caller of a plan's remarks, and pass it to the hooks that observe.

    Args:
        resolved: the plan.
    """
    warn_of_remarks(resolved, stacklevel=4)
    registry().observe("tersely_plan_resolved", plan=resolved)


def warn_of_remarks(resolved: Plan, *, stacklevel: int = 3) -> None:
    """Warn the caller's caller of what in a plan has no effect, or probably not the one intended.

    Args:
        resolved: the plan.
        stacklevel: which caller the warning names, as for `warnings.warn`.
    """
    for remarks, what in (
        (resolved.unmatched, "matched nothing"),
        (resolved.shadowed, "configured twice"),
    ):
        if remarks:
            lines = [f"{len(remarks)} {what} (tersely.plan(...) lists them):"]
            lines += [f"  {remark}" for remark in remarks[:_SHOWN]]
            if len(remarks) > _SHOWN:
                lines.append(f"  ... and {len(remarks) - _SHOWN} more")
            warnings.warn("\n".join(lines), PlanWarning, stacklevel=stacklevel)
    for remark in class_dimension_warnings(resolved.targets):
        warnings.warn(remark, PlanWarning, stacklevel=stacklevel)


_SHOWN = 10
