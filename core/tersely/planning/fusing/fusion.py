"""Module fusion for quantization: which tuples of names can fold into their first (rule Q4)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from tersely.document.recipe import AUTO, Entry
from tersely.planning.plan import Plan
from tersely.planning.stages.draft import Draft
from tersely.planning.targets.owners import Owners

_SYNCHRONIZED = "SyncBatchNorm"
_NORM_OF = {
    f"{kind}{dim}": f"BatchNorm{dim}"
    for kind in ("Conv", "ConvTranspose")
    for dim in ("1d", "2d", "3d")
}
_NORM_OF["Linear"] = "BatchNorm1d"
NORMS = frozenset((*_NORM_OF.values(), _SYNCHRONIZED))
"""Class names of batch norms that fold into a layer before them."""

_ACTIVATIONS = frozenset((
    "ELU", "GELU", "Hardsigmoid", "Hardswish", "Hardtanh", "LeakyReLU",
    "Mish", "ReLU", "ReLU6", "Sigmoid", "SiLU", "Tanh",
))  # fmt: skip
"""Class names of activations that work element by element and hold no parameters."""

HEADS = frozenset(_NORM_OF) | NORMS
"""Class names of what something folds into."""

FOLLOWERS = NORMS | _ACTIVATIONS
"""Class names of what folds into a module before it."""


def norms_of(head: str) -> frozenset[str]:
    """Return the class names of batch norms that fold into a layer.

    Args:
        head: the layer's class name.
    """
    return frozenset((_NORM_OF[head], _SYNCHRONIZED)) if head in _NORM_OF else frozenset()


def is_foldable(types: Sequence[str]) -> bool:
    """Tell whether modules of these types, in this order, fold into the first.

    Args:
        types: class names, the weighted module first.
    """
    head, *rest = types
    if head not in HEADS:
        return False
    if rest and rest[0] in norms_of(head):
        rest = rest[1:]
        if not rest:
            return True
    return len(rest) == 1 and rest[0] in _ACTIVATIONS


def shared_tensor(module: nn.Module, owners: Owners) -> str | None:
    """Return a parameter or buffer of a module that others have too, or None.

    Folding writes other values into what a module owns, and these would then have them as well.

    Args:
        module: a module of the model.
        owners: of the model's tensors.
    """
    tensors = {**module._parameters, **module._buffers}
    return next(
        (name for name, one in tensors.items() if one is not None and len(owners.of(one)) > 1), None
    )


def check_fusions(plan: Plan, draft: Draft) -> None:
    """Add every impossible ``fuse_names`` tuple to the draft's problems.

    Args:
        plan: the resolved plan.
        draft: where problems are collected.
    """
    holders = [one for stage in plan.recipe.stages for one in stage.holders if one.fuse_names]
    configured = {
        draft.universe.index[target.module]
        for target in (plan.targets if holders else ())
        if target.method == "quantization"
    }
    folded: dict[int, str] = {}
    for holder in holders:
        for number, names in enumerate(() if holder.fuse_names == AUTO else holder.fuse_names):
            path = f"{holder.path}.fuse_names[{number}]"
            positions = [draft.universe.canonical(name) for name in names]
            problems = [
                _missing(name, draft)
                for name, position in zip(names, positions, strict=True)
                if position is None
            ]
            known = [position for position in positions if position is not None]
            if not problems:
                if known[0] not in draft.selected_by[holder.path]:
                    what = "entry" if isinstance(holder, Entry) else "stage"
                    problems.append(
                        f"{names[0]!r} is not among the modules this {what} selects; the first "
                        "name must be the module that is quantized"
                    )
                problems += _problems(names, known, configured, draft=draft)
                problems += [
                    f"{name!r} is in {folded[position]} too; a module folds once"
                    for name, position in zip(names, known, strict=True)
                    if position in folded
                ]
                folded.update((position, path) for position in known)
            for problem in problems:
                draft.blame(path, None, problem)


def _missing(name: str, draft: Draft) -> str:
    near = draft.suggest(name, draft.universe.names)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"the model has no module {name!r}{hint}"


def _problems(
    names: Sequence[str], positions: Sequence[int], configured: set[int], *, draft: Draft
) -> list[str]:
    found = [
        f"{name!r} is both configured and folded into {names[0]!r}; leave it out of op_names or "
        "out of the tuple"
        for name, position in zip(names[1:], positions[1:], strict=True)
        if position in configured
    ]
    for name, position in zip(names, positions, strict=True):
        shared = shared_tensor(draft.universe.modules[position], draft.owners)
        if shared is not None and len(names) > 1:
            found.append(
                f"{name!r} shares its {shared!r} with another module, which folding would change "
                "as well; leave it out of the tuple"
            )
    types = [draft.universe.class_of(position).__name__ for position in positions]
    if not is_foldable(types):
        found.append(
            f"{' + '.join(types)} cannot be folded; known are a convolution, also a transposed "
            "one, or Linear with its batch norm, with an activation, or with both in this order, "
            "and a batch norm with an activation; activations are "
            f"{', '.join(sorted(_ACTIVATIONS))}"
        )
    return found
