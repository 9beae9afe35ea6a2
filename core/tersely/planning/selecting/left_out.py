"""Hints on what a stage leaves out although its types suggest otherwise (rule S7)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.parameter import is_lazy

from tersely.document.recipe import Stage
from tersely.planning.selecting.classes import is_type, original_class
from tersely.planning.stages.draft import Draft, and_more

_NAMES = 12
"""How many names a hint lists."""

_FUSED_DIMENSIONS = 3  # experts, out, in


def derived_types_hint(draft: Draft, stage: Stage, derived: Mapping[int, str]) -> str | None:
    """Return a hint on modules whose types are subclasses of a named type (rule S7.1).

    Args:
        draft: the plan so far.
        stage: the stage, all of its entries planned.
        derived: position of such a module that its entry does not select -> the named type.

    Returns:
        One hint, or None where there is none.
    """
    universe = draft.universe
    counts: dict[tuple[str, str], tuple[int, str]] = {}
    total = 0
    for position in sorted(derived):
        key = (universe.class_of(position).__name__, derived[position])
        count, first = counts.get(key, (0, universe.names[position]))
        counts[key] = (count + 1, first)
        total += 1
    if not total:
        return None
    kinds = [
        f"{count} of {cls!r}, a subclass of {named!r} ({first!r}{and_more(count - 1)})"
        for (cls, named), (count, first) in counts.items()
    ]
    return (
        f"{stage.path}: {total} {'module is' if total == 1 else 'modules are'} not selected, "
        f"because op_types matches exact types: {', '.join(kinds)}; to include them, add these "
        "types to op_types, with target_names"
    )


def fused_parameters_hint(draft: Draft, stage: Stage, number: int) -> str | None:
    """Return a hint on fused experts that ``op_types: [Linear]`` does not reach (rule S7.3).

    Args:
        draft: the plan so far.
        stage: the stage, all of its entries planned.
        number: its index in the recipe.

    Returns:
        One hint, or None where most parameters are targets or no other parameter has the form.
    """
    if stage.method == "distillation" or not _names_linear(stage):
        return None
    claims = draft.claims.get((stage.method, None), {})
    reached = {
        identity
        for identity, index in claims.items()
        if (target := draft.targets[index]) is not None and target.stage == number
    }
    fused = [
        (position, name)
        for position, name, parameter in _parameters(draft)
        if id(parameter) not in reached and _may_be_fused(draft, position, parameter)
    ]
    if not fused:
        return None
    sizes = {id(one): one.numel() for _, _, one in _parameters(draft) if not is_lazy(one)}
    untouched = sum(size for identity, size in sizes.items() if identity not in reached)
    if untouched * 2 <= sum(sizes.values()):
        return None
    shown = ", ".join(repr(name) for _, name in fused[:_NAMES])
    types = dict.fromkeys(draft.universe.class_of(position).__name__ for position, _ in fused)
    return (
        f"{stage.path}: {untouched / sum(sizes.values()):.0%} of the parameters are not targets of "
        "this stage. Layers such as mixtures of experts keep their weights in one parameter of "
        f"shape [experts, out, in], which op_types: [Linear] does not select: {shown}"
        f"{and_more(max(len(fused) - _NAMES, 0))}; select them by their types, "
        f"{', '.join(map(repr, types))}, with target_names"
    )


def _names_linear(stage: Stage) -> bool:
    return any(is_type(nn.Linear, name) for entry in stage.entries for name in entry.op_types)


def _parameters(draft: Draft) -> Iterator[tuple[int, str, Tensor]]:
    universe = draft.universe
    for position in sorted(universe.first.values()):
        prefix = universe.names[position]
        for name, parameter in universe.modules[position]._parameters.items():
            if parameter is not None:
                yield position, f"{prefix}.{name}" if prefix else name, parameter


def _may_be_fused(draft: Draft, position: int, parameter: Tensor) -> bool:
    if is_lazy(parameter) or parameter.ndim != _FUSED_DIMENSIONS or 1 in parameter.shape:
        return False
    module = draft.universe.modules[position]
    cls = original_class(type(module))
    return not (isinstance(module, (_ConvNd, nn.Bilinear)) or cls.__module__.startswith("torch."))
