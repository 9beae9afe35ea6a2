"""Planning one stage: each entry's modules and the targets they get."""

from __future__ import annotations

from collections.abc import Mapping

import attrs
from torch import Tensor, nn

from laconic.blocks import Blocks
from laconic.document.recipe import Entry, Stage
from laconic.planning.classes import original_class
from laconic.planning.draft import Draft, claimed_address
from laconic.planning.granularity import DEFAULT, divide
from laconic.planning.obstacles import absence, obstacle
from laconic.planning.plan import Origin, Skipped, TargetPlan, Unmatched
from laconic.planning.rows import Row, rows_of
from laconic.planning.selection import select
from laconic.planning.signature import signature_of
from laconic.planning.templates import expand_stars
from laconic.registry.descriptors import (
    Json,
    ModuleSetting,
    PrunerInfo,
    QuantizerInfo,
    TargetKind,
)
from laconic.registry.registry import registry

DEFAULT_LOSS = "mse"


def plan_stage(draft: Draft, number: int, *, info: PrunerInfo | None = None) -> None:
    """Add the targets of one stage to a draft.

    Args:
        draft: the plan so far.
        number: index of the stage in the recipe.
        info: what to plan for instead of the stage's algorithm, or None.
    """
    stage = draft.recipe.stages[number]
    planner = _StagePlanner(draft, stage, number, info or descriptor_of(stage))
    for entry in stage.entries:
        planner.plan_entry(entry)


def descriptor_of(stage: Stage) -> PrunerInfo | QuantizerInfo | None:
    """Return the descriptor of a stage's algorithm, or None for distillation.

    Raises:
        UnknownPluginError: nobody provides the algorithm any more.
    """
    if stage.method == "pruning":
        return registry().pruners.info(stage.algorithm)
    if stage.method == "quantization":
        return registry().quantizers.info(stage.algorithm)
    return None


def loss_name(setting: Mapping[str, Json]) -> str:
    """Return the distillation loss a setting asks for."""
    method = setting.get("apply_method")
    if method is None:
        return DEFAULT_LOSS
    return method if isinstance(method, str) else str(next(iter(method)))


@attrs.frozen(eq=False)
class _ClassRow:
    """One target as all modules of a class have it under one entry.

    Attributes:
        row: the target and its setting.
        algorithm: the name the plan shows.
        claims: the claims of the method at the address where all spellings of the input or output
            meet, or those of parameters.
        problem: why no module of the class can have it, or None.
        blocks: shape -> the blocks it is cut into, found once for each shape.
    """

    row: Row
    algorithm: str
    claims: dict[int, int]
    problem: str | None
    blocks: dict[tuple[int, ...] | None, Blocks | None] = attrs.field(factory=dict)


@attrs.frozen(eq=False)
class _ClassRows:
    """What all modules of one class share under one entry."""

    rows: tuple[_ClassRow, ...]
    idle_settings: tuple[str, ...]
    setting: ModuleSetting
    type_name: str
    has_stars: bool = False


@attrs.define(eq=False)
class _StagePlanner:
    """Plans one entry after the other; mutable because it notes which keys were of use."""

    draft: Draft
    stage: Stage
    number: int
    info: PrunerInfo | QuantizerInfo | None
    used: set[str] = attrs.field(factory=set)

    def plan_entry(self, entry: Entry) -> None:
        draft = self.draft
        selection = select(draft.universe, entry)
        draft.unmatched.extend(selection.unmatched)
        draft.hints.extend(selection.hints)
        draft.selected.update(selection.positions)
        self.used = set()
        shared: dict[type[nn.Module], _ClassRows | None] = {}
        origins = {
            selector: Origin(entry.path, selector, entry.line)
            for selector in dict.fromkeys(selection.selectors)
        }
        for position, selector in zip(selection.positions, selection.selectors, strict=True):
            module = draft.universe.modules[position]
            cls = original_class(type(module))
            if cls not in shared:
                shared[cls] = self._class_rows(cls, module, entry, position)
            found = shared[cls]
            if found is not None and found.has_stars:
                # The template names parameters by their beginning: modules of a class differ.
                found = self._class_rows(cls, module, entry, position)
            if found is not None:
                self._plan_module(found, module, position, origins[selector])
        if selection.positions:
            self._report_idle(entry, list(shared.values()))

    def _class_rows(
        self, cls: type[nn.Module], module: nn.Module, entry: Entry, position: int
    ) -> _ClassRows | None:
        templates = self.draft.templates
        template = templates.targets_of(cls, self.stage.method)
        if template is None and entry.target_names is None and not entry.target_settings:
            self.draft.problems.append(self._no_template(module, entry, position))
            return None
        expanded = expand_stars(template or {}, list(module._parameters))
        rows = rows_of(entry, expanded, self.stage.method)
        self.used |= rows.used
        self.draft.problems.extend(rows.problems)
        return _ClassRows(
            tuple(self._class_row(row, module) for row in rows.rows),
            rows.idle_settings,
            templates.setting_of(cls),
            cls.__name__,
            template is not None and expanded is not template,
        )

    def _class_row(self, row: Row, module: nn.Module) -> _ClassRow:
        name = self.stage.algorithm if self.info else loss_name(row.setting)
        method, claims = self.stage.method, self.draft.claims
        if row.address is None:
            return _ClassRow(row, name, claims.setdefault((method, None), {}), None)
        signature = signature_of(module)
        problem = signature.problem(row.address.key) if row.address.side == "input" else None
        address = claimed_address(row.target, signature)
        return _ClassRow(row, name, claims.setdefault((method, address), {}), problem)

    def _no_template(self, module: nn.Module, entry: Entry, position: int) -> str:
        name = self.draft.universe.names[position]
        type_name = original_class(type(module)).__name__
        example = list(module._parameters)[:2] or ["_output_"]
        where = f"module {name!r}" if name else "the root module"
        return (
            f"{entry.path}: {where} has type {type_name}, which has no default targets for "
            f"{self.stage.method}; write target_names: [{', '.join(example)}] in this entry, leave "
            f"the type out with exclude_op_types: [{type_name}], or give the type defaults with "
            f"laconic.register_module_setting"
        )

    def _plan_module(
        self, found: _ClassRows, module: nn.Module, position: int, origin: Origin
    ) -> None:
        # The inner loop of planning: a large model comes through here tens of thousands of times.
        draft = self.draft
        owners = draft.owners
        name = draft.universe.names[position]
        setting = found.setting
        channel_dim = 1 if setting.channels_first else -1
        for shared in found.rows:
            row = shared.row
            target_name = row.target
            tensor: Tensor | None = None
            shape: tuple[int, ...] | None = None
            kind: TargetKind
            if row.address is None:
                located = self._locate(row, module, name, origin)
                if located is None:
                    continue
                kind, tensor = located
                shape = tuple(tensor.shape)
                identity = id(tensor)
            elif shared.problem is not None:
                draft.problems.append(f"{origin.path}: {_full(name, target_name)}: {shared.problem}")
                continue
            else:
                kind = row.address.side
                identity = id(module)
            blocks = shared.blocks.get(shape, _UNKNOWN)
            target = TargetPlan(
                name,
                target_name,
                kind,
                self.stage.method,
                shared.algorithm,
                row.setting,
                origin,
                () if owners.is_plain else owners.others(position, target_name, tensor),
                self.number,
                shape,
                blocks,
                found.type_name,
                setting.output_dim,
                setting.input_dim,
                channel_dim,
            )
            if blocks is _UNKNOWN:
                blocks = shared.blocks[shape] = self._blocks_of(target)
                target = attrs.evolve(target, blocks=blocks)
            if identity in shared.claims:
                draft.settle(shared.claims, identity, target)
            else:
                shared.claims[identity] = len(draft.targets)
                draft.targets.append(target)

    def _locate(
        self, row: Row, module: nn.Module, name: str, origin: Origin
    ) -> tuple[TargetKind, Tensor] | None:
        target = row.target
        kind: TargetKind = "parameter"
        tensors: Mapping[str, Tensor | None] = module._parameters
        if target not in tensors:
            kind, tensors = "buffer", module._buffers
        if target not in tensors:
            if row.is_explicit:
                problem = absence(module, target)
                self.draft.problems.append(f"{origin.path}: {_full(name, target)}: {problem}")
            return None
        tensor = tensors[target]
        if tensor is None:
            self.draft.skipped.append(Skipped(name, target, "the module has None there"))
            return None
        found = obstacle(module, target, tensor)
        if found is not None:
            self.draft.problems.append(f"{origin.path}: {_full(name, target)}: {found}")
            return None
        return kind, tensor

    def _blocks_of(self, target: TargetPlan) -> Blocks | None:
        info, setting = self.info, target.setting
        is_aligned = setting.get("align") is not None
        if info is None or (is_aligned and setting.get("granularity") in (None, "default")):
            return None
        if target.kind not in info.target_kinds and not is_aligned:
            self.draft.problems.append(
                f"{target.origin.path}: {target.name}: {info.name} cannot be used on "
                f"{target.kind}s, only on: {', '.join(info.target_kinds)}"
            )
            return None
        if target.shape is None:
            return None
        try:
            return divide(setting.get("granularity"), target, target.shape, info)
        except ValueError as error:
            self.draft.problems.append(f"{target.origin.path}: {target.name}: {error}")
            return None

    def _report_idle(self, entry: Entry, classes: list[_ClassRows | None]) -> None:
        if None in classes:
            return
        for name in entry.target_settings:
            if all(found is not None and name in found.idle_settings for found in classes):
                path = f"{entry.path}.target_settings.{name}"
                message = f"{path}: {name!r} is not among the entry's target_names"
                self.draft.unmatched.append(Unmatched(path, name, (), message))
        for key in entry.shortcuts:
            if key not in self.used:
                self.draft.hints.append(
                    f"{entry.path}.{key}: reaches no target, because no target of this entry has "
                    f"the key in its template; write it in target_settings of the target you mean"
                )


_UNKNOWN: Blocks = Blocks(())
"""Stands for a shape that was not met before; None is what aligned targets have."""


def _full(module: str, target: str) -> str:
    return f"{module}.{target}" if module else target


