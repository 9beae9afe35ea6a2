"""A plan in as many lines as fit a screen: what happens to how much, and what stays untouched."""

from __future__ import annotations

import math
import textwrap
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Sequence
from typing import TypeAlias

import attrs
from torch import nn

from tersely.arithmetic.blocks import count_blocks
from tersely.contracts.settings import QuantizationSetting
from tersely.contracts.target_plan import TargetPlan
from tersely.planning.plan import Plan
from tersely.planning.remarks import fold_skipped
from tersely.planning.table import describe, remarks
from tersely.reporting.printing.folded_names import fold_names
from tersely.reporting.quantized_size import QuantizedSize, spell_count, stored_bits

_Treatment: TypeAlias = tuple[tuple[str, str], ...]

_LISTED = 8
_PARTS = 5
_EXAMPLES = 2


def summarize_plan(plan: Plan, model: nn.Module | None = None, *, width: int = 80) -> str:
    """Return what a plan does as a few lines for people.

    Modules that are treated the same way are one paragraph: their number, how many weights they
    have, what is done to each of their tensors, and their names, with repeated blocks as patterns
    such as ``layer.{0..5}.{query,key,value}``. ``print(plan)`` shows a row for each target.

    Args:
        plan: the plan.
        model: the model it was made for; without it, what the plan leaves untouched is not shown.
        width: how many columns the lines take, except where a name alone takes more.
    """
    lines = []
    for index, stage in enumerate(plan.recipe.stages):
        targets = [target for target in plan.targets if target.stage == index]
        lines.append(f"{stage.path}: {stage.algorithm}" if stage.algorithm else stage.path)
        for group in _groups(targets):
            lines += _paragraph(group, width)
    if model is not None:
        lines += _untouched(plan, model, width)
    lines += [f"skipped: {one}" for one in fold_skipped(plan.skipped)]
    for line in remarks(plan, skipped=False):
        text = line.lstrip()
        lines += _wrapped(text, len(line) - len(text), width) if text else [line]
    return "\n".join(lines)


@attrs.frozen
class _Group:
    """Modules of one type that a stage treats the same way.

    Attributes:
        module_type: their class name.
        treatment: what is done to each of their targets.
        entries: the entries of the stage that decide about them.
        modules: their names.
        targets: their targets.
    """

    module_type: str
    treatment: _Treatment
    entries: Sequence[str]
    modules: Sequence[str]
    targets: Sequence[TargetPlan]


def _groups(targets: Iterable[TargetPlan]) -> list[_Group]:
    by_module: dict[str, list[TargetPlan]] = {}
    for target in targets:
        by_module.setdefault(target.module, []).append(target)
    alike: dict[tuple[str, _Treatment], list[str]] = {}
    for name, own in by_module.items():
        treatment = tuple((target.target, _request(target)) for target in own)
        alike.setdefault((own[0].module_type, treatment), []).append(name)
    return [
        _group(kind, treatment, names, [one for name in names for one in by_module[name]])
        for (kind, treatment), names in alike.items()
    ]


def _group(
    kind: str, treatment: _Treatment, names: Sequence[str], targets: Sequence[TargetPlan]
) -> _Group:
    entries = dict.fromkeys(target.origin.path.rpartition(".")[2] for target in targets)
    return _Group(kind, treatment, tuple(entries), names, targets)


def _request(target: TargetPlan) -> str:
    if target.align is not None:
        source = target.align.module_for(target.module)
        return "follows " + (
            target.align.target_name if source == target.module else "another module"
        )
    if target.method == "distillation":
        return target.algorithm
    return describe(target)


def _paragraph(group: _Group, width: int) -> Iterator[str]:
    parameters = [one for one in group.targets if one.shape is not None and one.align is None]
    head = f"  {len(group.modules)} {group.module_type or 'module'} by {', '.join(group.entries)}"
    elements = sum(math.prod(one.shape or ()) for one in parameters)
    if elements:
        head += f": {spell_count(elements)} weights"
    size = _quantized_size(parameters)
    if size.elements:
        head += f", {size}"
    yield head
    longest = max(len(target) for target, _ in group.treatment)
    for target, request in group.treatment:
        yield from _wrapped(f"{target:<{longest}}  {request}", 4, width)
    yield from _names(group.modules, width)


def _quantized_size(parameters: Iterable[TargetPlan]) -> QuantizedSize:
    elements = bits = 0
    for target in parameters:
        setting = target.setting
        if not isinstance(setting, QuantizationSetting) or not target.shape:
            continue
        count = math.prod(target.shape)
        is_affine = setting.quant_scheme == "affine"
        scales = math.prod(count_blocks(target.blocks.size, target.shape)) if target.blocks else 1
        elements += count
        bits += stored_bits(setting.quant_dtype, elements=count, scales=scales, affine=is_affine)
    return QuantizedSize(elements, bits)


def _names(names: Sequence[str], width: int) -> Iterator[str]:
    patterns = fold_names(names)
    for index, pattern in enumerate(patterns[:_LISTED]):
        yield from _wrapped(pattern, 4, width, first="in " if not index else "   ")
    if len(patterns) > _LISTED:
        yield f"       and {len(patterns) - _LISTED} more; --rows shows all"


def _wrapped(text: str, indent: int, width: int, *, first: str = "") -> Iterator[str]:
    space = " " * indent
    yield from textwrap.wrap(
        text,
        width,
        initial_indent=space + first,
        subsequent_indent=space + "    ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _left_out(
    model: nn.Module, reached: Container[str], folded: Container[str]
) -> dict[str, Counter[str]]:
    """Return type of module -> name of module -> how many of its parameters are not reached."""
    left: dict[str, Counter[str]] = {}
    counted: set[nn.Parameter] = set()
    for module_name, module in model.named_modules():
        every = dict(module.named_parameters(recurse=False))
        # A tied parameter counts where it is first, as it is stored once.
        own = {name: one for name, one in every.items() if one not in counted}
        counted.update(own.values())
        prefix = f"{module_name}." if module_name else ""
        lost = [name for name in own if prefix + name not in reached]
        if not lost or module_name in folded:
            continue
        kind = type(module).__name__
        if len(lost) < len(every):
            kind += f" ({', '.join(lost)})"
        left.setdefault(kind, Counter())[module_name] += sum(own[name].numel() for name in lost)
    return left


def _untouched(plan: Plan, model: nn.Module, width: int) -> Iterator[str]:
    """Say which parameters no pruning and no quantization reaches, and what share they are.

    What is folded into a quantized layer is reached with it.
    """
    methods = {target.method for target in plan.targets} - {"distillation"}
    if not methods:
        return
    reached = {
        name
        for target in plan.targets
        if target.method in methods
        for name in (target.name, *target.shared_with)
    }
    folded = {name for one in plan.recipe.stages for names in one.folded for name in names[1:]}
    left = _left_out(model, reached, folded)
    total = sum(parameter.numel() for parameter in model.parameters())
    missed = sum(modules.total() for modules in left.values())
    if not missed:
        yield "untouched: nothing"
        return
    share = f"{100 * missed / total:.0f} %"
    yield f"untouched: {spell_count(missed)} of {spell_count(total)} parameters, {share}"
    kinds = sorted(left.items(), key=lambda one: -one[1].total())
    for kind, modules in kinds[:_PARTS]:
        patterns = fold_names(modules)
        shown = ", ".join(patterns[:_EXAMPLES]) + (", ..." if len(patterns) > _EXAMPLES else "")
        text = f"{spell_count(modules.total())} in {len(modules)} {kind}: {shown}"
        yield from _wrapped(text, 2, width)
    if len(kinds) > _PARTS:
        rest = sum(modules.total() for _, modules in kinds[_PARTS:])
        yield f"  {spell_count(rest)} in modules of {len(kinds) - _PARTS} other types"
