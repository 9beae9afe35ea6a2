"""Distillation targets whose loss, projection or options do not suit what their module produces."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from torch import nn

from tersely.contracts.target_plan import TargetPlan
from tersely.planning.stages.draft import Draft
from tersely.planning.targets.signature import signature_of
from tersely.registry.descriptors import LossInfo
from tersely.registry.registry import registry

_MAPS = re.compile(r"(?<!BatchNorm1)(?<=[123])d\Z")
"""Modules whose activations have positions after the channels; BatchNorm1d may have none."""


def check_losses(targets: Sequence[TargetPlan], draft: Draft, model: nn.Module) -> None:
    """Add distillation targets with an impossible projection or named input to the problems.

    Args:
        targets: the plan's distillation targets.
        draft: where problems are collected.
        model: the student.
    """
    for target in targets:
        setting = target.distillation
        if not needs_teacher(target):
            _check_alone(target, draft)
        elif setting.projection == "linear" and _is_map(target):
            draft.blame(
                target.origin.path,
                target.name,
                "projection 'linear' maps the last dimension, which holds positions of a "
                f"{target.module_type}; write projection: conv1x1, which maps its channels",
            )
        for option in _info(target).input_options:
            name = setting.loss_options.get(option)
            problem = None if name is None else signature_of(model).problem(name)
            if problem is not None:
                draft.blame(
                    target.origin.path,
                    target.name,
                    f"option {option!r} of {setting.loss} names the model's input {name!r}, and "
                    f"{problem}",
                )


def needs_teacher(target: TargetPlan) -> bool:
    """Tell whether the loss of a target compares it with the teacher.

    Args:
        target: a distillation target.
    """
    return _info(target).needs == "teacher"


def _check_alone(target: TargetPlan, draft: Draft) -> None:
    setting = target.distillation
    for key, value in (("link", setting.links), ("projection", setting.projection)):
        if value is not None:
            draft.blame(
                target.origin.path,
                target.name,
                f"{setting.loss} is a loss of the student alone, so {key!r} has no meaning for it; "
                "remove it",
            )


def class_dimension_warnings(targets: Iterable[TargetPlan]) -> Iterator[str]:
    """Yield every target whose loss looks for classes in a dimension of positions.

    Args:
        targets: a plan's targets.
    """
    for target in targets:
        if target.method != "distillation" or not _is_map(target):
            continue
        setting = target.distillation
        if "dim" in _info(target).options.get("properties", {}) and (
            "dim" not in setting.loss_options
        ):
            yield (
                f"{target.origin.path}: {target.name}: {setting.loss} takes the last dimension for "
                f"classes, which holds positions of a {target.module_type}; write apply_method: "
                f"{{{setting.loss}: {{dim: 1}}}}"
            )


def _info(target: TargetPlan) -> LossInfo:
    return registry().losses.info(target.distillation.loss)


def _is_map(target: TargetPlan) -> bool:
    return (
        target.kind in ("input", "output")
        and target.channel_dim == 1
        and _MAPS.search(target.module_type) is not None
    )
