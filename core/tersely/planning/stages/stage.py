"""Planning one stage: each entry's modules and the targets they get."""

from __future__ import annotations

from collections.abc import Mapping

import attrs
from torch import Tensor, nn

from tersely.arithmetic.blocks import Blocks
from tersely.contracts.kinds import TargetKind
from tersely.contracts.settings import DEFAULT_GRANULARITY, DistillationSetting
from tersely.contracts.target_plan import Origin, TargetPlan
from tersely.document.recipe import Entry, Stage
from tersely.planning.remarks import Skipped, Unmatched, worth_reporting
from tersely.planning.selecting.classes import original_class
from tersely.planning.selecting.left_out import derived_types_hint, fused_parameters_hint
from tersely.planning.selecting.obstacles import (
    has_tensor,
    module_obstacle,
    no_template,
    type_parameters,
)
from tersely.planning.selecting.selection import select
from tersely.planning.stages.descriptors import descriptor_of
from tersely.planning.stages.draft import Draft
from tersely.planning.stages.locating import full_target, locate
from tersely.planning.targets.class_rows import ClassRow, ClassRows, class_rows
from tersely.planning.targets.granularity import divide, in_force
from tersely.registry.descriptors import PrunerInfo, QuantizerInfo


def plan_stage(
    draft: Draft, number: int, *, info: PrunerInfo | QuantizerInfo | None = None
) -> None:
    """Add the targets of one stage to a draft.

    Args:
        draft: the plan so far.
        number: index of the stage in the recipe.
        info: what to plan for instead of the stage's algorithm, or None.
    """
    stage = draft.recipe.stages[number]
    if stage.preset:
        draft.hints.append(f"{stage.path}: {stage.preset}")
    planner = _StagePlanner(draft, stage, number, info or descriptor_of(stage))
    for entry in stage.entries:
        planner.plan_entry(entry)
    selected = planner.selected
    derived = {key: name for key, name in planner.derived.items() if key not in selected}
    for hint in (
        derived_types_hint(draft, stage, derived),
        fused_parameters_hint(draft, stage, number),
    ):
        if hint is not None:
            draft.hints.append(hint)


@attrs.define(eq=False)
class _StagePlanner:
    """Plans one entry after the other; mutable because it keeps what an entry's modules share.

    Attributes:
        draft: the plan so far.
        stage: the stage to plan.
        number: its index in the recipe.
        info: its algorithm's descriptor, or None for distillation.
        shared: class -> what its modules share under the entry at hand, None when they have no
            targets; classes whose modules differ are also keyed by the names of their parameters.
        selected: positions of the modules that the stage selects.
        derived: position of a module of a subclass of a named type -> the named type.
        barred: identity of a tied tensor that the entry at hand excludes under another name ->
            that name and what excludes it.
    """

    draft: Draft
    stage: Stage
    number: int
    info: PrunerInfo | QuantizerInfo | None
    shared: dict[object, ClassRows | None] = attrs.field(factory=dict)
    selected: set[int] = attrs.field(factory=set)
    derived: dict[int, str] = attrs.field(factory=dict)
    barred: Mapping[int, tuple[str, str]] = attrs.field(factory=dict)

    def plan_entry(self, entry: Entry) -> None:
        draft = self.draft
        selection = select(draft.universe, entry, suggest=draft.suggest)
        draft.unmatched.extend(worth_reporting(selection.unmatched, entry, self.stage))
        draft.hints.extend(selection.hints)
        draft.selected.update(selection.positions)
        self.selected.update(selection.positions)
        self.derived.update(selection.derived)
        self.barred = draft.owners.tied_to(selection.excluded)
        if entry.fuse_names:
            draft.selected_by[entry.path] = frozenset(selection.positions)
        if self.stage.fuse_names or self.stage.folds_by_preset:
            others = draft.selected_by.get(self.stage.path, frozenset())
            draft.selected_by[self.stage.path] = others | frozenset(selection.positions)
        self.shared = {}
        origins = {
            selector: Origin(entry.path, selector, entry.line, entry.is_preset)
            for selector in dict.fromkeys(selection.selectors)
        }
        classes: dict[type[nn.Module], type[nn.Module]] = {}
        for position, selector in zip(selection.positions, selection.selectors, strict=True):
            module = draft.universe.modules[position]
            cls = classes.get(type(module))
            if cls is None:
                cls = classes[type(module)] = original_class(type(module))
            if cls not in self.shared:
                self.shared[cls] = self._class_rows(module, entry, position)
            found = self.shared[cls]
            if found is not None and found.has_stars:
                key = (cls, *type_parameters(module))
                if key not in self.shared:
                    self.shared[key] = class_rows(
                        draft, self.stage, entry, module=module, info=self.info
                    )
                found = self.shared[key]
            if found is not None:
                self._plan_module(found, module, position, origins[selector])
        self._report(entry)

    def _class_rows(self, module: nn.Module, entry: Entry, position: int) -> ClassRows | None:
        name = self.draft.universe.names[position]
        where = f"module {name!r}" if name else "the root module"
        problem = module_obstacle(module)
        if problem is not None:
            self.draft.blame(entry.path, None, f"{where} {problem}")
            return None
        found = class_rows(self.draft, self.stage, entry, module=module, info=self.info)
        if found is None:
            missing = no_template(module, self.stage.method)
            self.draft.blame(entry.path, None, f"{where} {missing}")
        return found

    def _plan_module(
        self, found: ClassRows, module: nn.Module, position: int, origin: Origin
    ) -> None:
        # The inner loop of planning: a large model comes through here tens of thousands of times.
        draft = self.draft
        owners = draft.owners
        name = draft.universe.names[position]
        setting = found.setting
        channel_dim = 1 if setting.channels_first else -1
        groups = _repeats(module) if setting.output_dim and not setting.experts else 1
        for shared in found.rows:
            if self.barred and self._is_barred(shared, module, name, origin):
                continue
            if shared.may_lose and self._is_lost(shared, module, name, origin):
                continue
            row = shared.row
            target_name = row.target
            tensor: Tensor | None = None
            shape: tuple[int, ...] | None = None
            kind: TargetKind
            if row.address is None:
                located = shared.ordinary(module) or locate(
                    draft, shared, module, name=name, origin=origin
                )
                if located is None:
                    continue
                kind, tensor = located
                shape = shared.shapes.get(tensor.shape)
                if shape is None:
                    shape = shared.shapes[tensor.shape] = tuple(tensor.shape)
                identity = id(tensor)
            elif shared.problem is not None:
                draft.blame(origin.path, full_target(name, target_name), shared.problem)
                continue
            else:
                kind = row.address.side
                identity = id(module)
            # Modules of one class share what is found for a shape, if their groups are as many.
            cut = shape if groups == 1 or shape is None else (-groups, *shape)
            blocks = shared.blocks.get(cut, _UNKNOWN)
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
                groups,
                target_name in setting.experts,
            )
            if blocks is _UNKNOWN:
                blocks = shared.blocks[cut] = self._cut(shared, target)
                target = attrs.evolve(target, blocks=blocks)
            if blocks is None and shape in shared.refused:
                draft.blame(origin.path, target.name, shared.refused[shape])
            if identity in shared.claims:
                draft.settle(shared.claims, identity, target)
            else:
                shared.claims[identity] = len(draft.targets)
                draft.targets.append(target)

    def _is_barred(self, shared: ClassRow, module: nn.Module, name: str, origin: Origin) -> bool:
        """Leave out a tied parameter that the entry excludes under another name (rule S7.2).

        An entry of a preset then leaves out what the layer reads and returns, too (rule Q6.8).
        """
        held: tuple[str | None, ...] = (shared.row.target, shared.follows)
        if shared.row.address is not None:
            held = ("weight",) if origin.is_preset else ()
        for target in held:
            tensor = None if target is None else module._parameters.get(target)
            reason = None if tensor is None else self.barred.get(id(tensor))
            if reason is not None:
                other, selector = reason
                what = f"it is {other}" if target == shared.row.target else f"{target} is {other}"
                reason_text = f"{what}, which the entry leaves out ({selector})"
                self.draft.skipped.append(Skipped(name, shared.row.target, reason_text))
                return True
        return False

    def _is_lost(self, shared: ClassRow, module: nn.Module, name: str, origin: Origin) -> bool:
        # What only loses needs no TargetPlan; where entries overlap, most come through here.
        row = shared.row
        tensor = None if row.address is not None else module._parameters.get(row.target)
        taken = shared.claims.get(id(module if row.address is not None else tensor))
        if taken is None or shared.problem is not None:
            return False
        if shared.follows is not None and not has_tensor(module, shared.follows):
            return False
        # A shape that was not met yet may be refused, which is said also of what loses.
        shape = None if tensor is None else tensor.shape
        if shape not in shared.blocks or shape in shared.refused:
            return False
        winner = self.draft.winner_over(taken, self.number, origin)
        if winner is not None:
            method = self.stage.method
            self.draft.shadowed.add(name, row.target, method, winner=winner, loser=origin)
        return winner is not None

    def _cut(self, shared: ClassRow, target: TargetPlan) -> Blocks | None:
        info, setting = self.info, target.setting
        if info is None or isinstance(setting, DistillationSetting):
            return None
        value = setting.granularity
        is_aligned = target.align is not None
        if is_aligned and value == DEFAULT_GRANULARITY:
            return None
        try:
            if target.kind not in info.target_kinds and not is_aligned:
                raise ValueError(
                    f"{info.name} cannot be used on {target.kind}s, only on: "
                    f"{', '.join(info.target_kinds)}"
                )
            if target.shape is None:
                in_force(value, target.kind, info)  # the shape comes with calibration
                return None
            return divide(value, target, target.shape, info)
        except ValueError as error:
            shared.refused[target.shape] = str(error)
            return None

    def _report(self, entry: Entry) -> None:
        found = [one for one in self.shared.values() if one is not None]
        for path, problem in dict.fromkeys(one for rows in found for one in rows.problems):
            self.draft.blame(path, None, problem)
        if not found or len(found) < len(self.shared):
            return
        for name in entry.target_settings:
            if all(name in one.idle_settings for one in found):
                path = f"{entry.path}.target_settings.{name}"
                message = f"{path}: {name!r} is not among the entry's target_names"
                self.draft.unmatched.append(Unmatched(path, name, (), message))
        for key in entry.shortcuts:
            if all(key not in one.used for one in found):
                self.draft.hints.append(
                    f"{entry.path}.{key}: reaches no target, because no target of this entry has "
                    "the key in its template; write it in target_settings of the target you mean"
                )


_UNKNOWN: Blocks = Blocks(())
"""Stands for a shape that was not met before; None is what aligned targets have."""


def _repeats(module: nn.Module) -> int:
    groups = getattr(module, "groups", 1)
    return groups if isinstance(groups, int) and groups > 0 else 1
