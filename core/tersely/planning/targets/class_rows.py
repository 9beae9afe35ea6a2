"""What all modules of one class share under one entry: targets, settings, claims and blocks."""

from __future__ import annotations

import attrs
import torch
from torch import Tensor, nn

from tersely.arithmetic.blocks import Blocks
from tersely.contracts.kinds import TargetKind
from tersely.contracts.settings import DistillationSetting, PruningSetting
from tersely.document.recipe import Entry, Stage
from tersely.planning.selecting.classes import RESERVED, original_class
from tersely.planning.selecting.experts import inferred_setting
from tersely.planning.selecting.obstacles import is_ordinary, type_parameters
from tersely.planning.stages.draft import Draft, claimed_address
from tersely.planning.targets.rows import Row, rows_of
from tersely.planning.targets.signature import signature_of
from tersely.planning.targets.templates import expand_stars
from tersely.registry.descriptors import ModuleSetting, PrunerInfo, QuantizerInfo

Shape = tuple[int, ...]


@attrs.frozen(eq=False)
class ClassRow:
    """One target as all modules of a class have it under one entry.

    Attributes:
        row: the target and its setting.
        algorithm: the short name, which the plan shows.
        claims: the claims of the method at the address where all spellings of the input or output
            meet, or those of parameters.
        problem: why no module of the class can have it, or None.
        follows: the target of the same module that the type's template aligns it with, or None.
        may_lose: whether an entry before this one may keep such a target from it.
        shapes: a tensor's size -> the same as a tuple, which equal targets share.
        blocks: shape -> the blocks it is cut into, found once for each shape.
        refused: shape -> why it cannot be cut, for the shapes that cannot.
    """

    row: Row
    algorithm: str
    claims: dict[int, int]
    problem: str | None = None
    follows: str | None = None
    may_lose: bool = False
    shapes: dict[torch.Size, Shape] = attrs.field(factory=dict)
    blocks: dict[Shape | None, Blocks | None] = attrs.field(factory=dict)
    refused: dict[Shape | None, str] = attrs.field(factory=dict)

    def ordinary(self, module: nn.Module) -> tuple[TargetKind, Tensor] | None:
        """Return what a module has there if it is a parameter without anything special, or None.

        Args:
            module: a module of the class.
        """
        target = self.row.target
        tensor = module._parameters.get(target)
        if tensor is None or self.follows is not None or target.startswith(RESERVED):
            return None
        return ("parameter", tensor) if is_ordinary(tensor) else None


@attrs.frozen(eq=False)
class ClassRows:
    """All targets of a class under one entry.

    Attributes:
        rows: the targets, in the order of the entry or of the template.
        used: the shortcut keys that reached at least one of them.
        problems: settings that contradict themselves: where they are, and how.
        idle_settings: targets of ``target_settings`` that ``target_names`` leaves out.
        setting: where the class has its channels.
        type_name: the class's name.
        has_stars: whether its template names parameters by their beginning, so that modules of
            the class may differ.
    """

    rows: tuple[ClassRow, ...]
    used: frozenset[str]
    problems: tuple[tuple[str, str], ...]
    idle_settings: tuple[str, ...]
    setting: ModuleSetting
    type_name: str
    has_stars: bool


def class_rows(
    draft: Draft,
    stage: Stage,
    entry: Entry,
    *,
    module: nn.Module,
    info: PrunerInfo | QuantizerInfo | None,
) -> ClassRows | None:
    """Resolve the targets of a module's class.

    Args:
        draft: the plan so far.
        stage: the stage the entry belongs to.
        entry: one mapping of its config list.
        module: a module of the class.
        info: the descriptor of the stage's algorithm, or None for distillation.

    Returns:
        The targets, or None when neither the entry nor a template names any.
    """
    cls = original_class(type(module))
    template, setting = draft.templates.targets_of(cls, stage.method), None
    if template is None:
        setting = inferred_setting(module)
        template = None if setting is None else getattr(setting, stage.method)
    if template is None and entry.target_names is None and not entry.target_settings:
        return None
    expanded = expand_stars(template or {}, type_parameters(module))
    rows = rows_of(entry, expanded, stage.method, info=info)
    return ClassRows(
        tuple(_class_row(draft, stage, entry, row=row, module=module) for row in rows.rows),
        rows.used,
        rows.problems,
        rows.idle_settings,
        setting or draft.templates.setting_of(cls),
        cls.__name__,
        template is not None and expanded is not template,
    )


def _class_row(
    draft: Draft, stage: Stage, entry: Entry, *, row: Row, module: nn.Module
) -> ClassRow:
    setting = row.setting
    spelled = setting.loss if isinstance(setting, DistillationSetting) else stage.algorithm
    algorithm = spelled.rpartition(":")[2]
    # Only what is claimed before the entry begins can win over it.
    is_first_kept = draft.policy(stage.method) == "first"
    if row.address is None:
        claims = draft.claims.setdefault((stage.method, None), {})
        return ClassRow(
            row,
            algorithm,
            claims,
            follows=_followed(entry, row),
            may_lose=bool(claims) and is_first_kept,
        )
    signature = signature_of(module)
    problem = signature.problem(row.address.key) if row.address.side == "input" else None
    if "" in (row.address.key, *row.address.path):
        problem = "a step between two dots is empty; write each key or index of a nested tensor"
    address = claimed_address(row.address, signature)
    claims = draft.claims.setdefault((stage.method, address), {})
    return ClassRow(row, algorithm, claims, problem, may_lose=bool(claims) and is_first_kept)


def _followed(entry: Entry, row: Row) -> str | None:
    align = row.setting.align if isinstance(row.setting, PruningSetting) else None
    if row.is_explicit or align is None or entry.shortcuts.get("align") is not None:
        return None
    return align.target_name if align.module_name is None else None
