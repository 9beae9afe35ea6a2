"""Module fusion for quantization: which tuples of names can fold into their first (rule Q4)."""

from __future__ import annotations

from collections.abc import Sequence

from laconic.document.suggest import nearest
from laconic.planning.classes import original_class
from laconic.planning.draft import Draft
from laconic.planning.plan import Plan

_WEIGHTED = {f"{kind}{dim}": f"BatchNorm{dim}" for kind in ("Conv",) for dim in ("1d", "2d", "3d")}
_WEIGHTED["Linear"] = "BatchNorm1d"
_RELU = ("ReLU", "ReLU6")


def is_foldable(types: Sequence[str]) -> bool:
    """Tell whether modules of these types, in this order, fold into the first.

    Args:
        types: class names, the weighted module first.
    """
    head, *rest = types
    norm = _WEIGHTED.get(head)
    return norm is not None and (
        rest == [norm]
        or (len(rest) == 1 and rest[0] in _RELU)
        or (len(rest) == 2 and rest[0] == norm and rest[1] in _RELU)  # noqa: PLR2004  # norm, ReLU
    )


def check_fusions(plan: Plan, draft: Draft) -> None:
    """Add every impossible ``fuse_names`` tuple to the draft's problems.

    Args:
        plan: the resolved plan.
        draft: where problems are collected.
    """
    configured = {target.module for target in plan.targets if target.method == "quantization"}
    for stage in plan.recipe.stages:
        for entry in stage.entries:
            for position, names in enumerate(entry.fuse_names):
                path = f"{entry.path}.fuse_names[{position}]"
                draft.problems.extend(
                    f"{path}: {problem}" for problem in _problems(names, configured, draft)
                )


def _problems(names: Sequence[str], configured: set[str], draft: Draft) -> list[str]:
    universe = draft.universe
    missing = [name for name in names if name not in universe.index]
    if missing:
        near = nearest(missing[0], universe.names)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        return [f"the model has no module {missing[0]!r}{hint}"]
    found = []
    if names[0] not in configured:
        found.append(
            f"{names[0]!r} is not selected for quantization; the first name must be the module "
            f"that is configured"
        )
    found += [
        f"{name!r} is configured besides being folded into {names[0]!r}; leave it out of op_names "
        f"or out of the tuple"
        for name in names[1:]
        if name in configured
    ]
    types = [original_class(type(universe.modules[universe.index[n]])).__name__ for n in names]
    if not is_foldable(types):
        found.append(
            f"{' + '.join(types)} cannot be folded; known are a convolution or Linear with its "
            f"batch norm, with ReLU, or with both in this order"
        )
    return found


