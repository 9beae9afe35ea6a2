"""The small model: cut with its instruments off, and counted; and the plan as it fits that."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from tersely.arithmetic.blocks import Blocks, resolve_size
from tersely.arithmetic.numbered import renumber
from tersely.contracts.calling import call_arguments
from tersely.engine.state.cutting import Cut, FixedShapes
from tersely.engine.targets.binding import BoundTarget
from tersely.errors import SessionError
from tersely.instrument.modules.classes import instruments_of
from tersely.planning.plan import Plan
from tersely.pruning.learned_masks import LearnedMask
from tersely.pruning.mask_buffers import is_kept
from tersely.shrinking.counting.counts import Counts, count, total
from tersely.shrinking.cutting.masked_weights import Used
from tersely.shrinking.report import Row, Shrunk, Smaller
from tersely.shrinking.shrink import Shrinking, shrink_module


def kept_parameters(masks: Iterable[tuple[BoundTarget, Tensor]]) -> dict[str, Tensor]:
    """Return what masks keep of parameters and buffers, by full name.

    Args:
        masks: targets with the buffers that mask them.

    Returns:
        Bool, True = kept, each of its tensor's shape.
    """
    return {
        bound.plan.name: is_kept(bound, mask).expand(bound.raw.shape)
        for bound, mask in masks
        if not bound.is_activation and not bound.is_additive
    }


def used_parameters(masks: Iterable[tuple[BoundTarget, Tensor]]) -> dict[str, Tensor]:
    """Return what forward uses of parameters that are multiplied by what their pruning learns.

    Args:
        masks: targets with the buffers that mask them, instrumented.

    Returns:
        Detached values by full name, each of its tensor's shape; none where a mask is all.
    """
    found = {}
    for bound, mask in masks:
        if bound.is_activation or bound.is_additive:
            continue
        for transform in instruments_of(bound.module).parameters.get(bound.plan.target, ()):
            if isinstance(transform, LearnedMask):
                raw = bound.raw.detach()
                used = transform(bound.module, raw).detach()
                if not torch.equal(used, raw * is_kept(bound, mask)):
                    found[bound.plan.name] = used
    return found


def cut_model(
    model: nn.Module,
    example_inputs: Any,
    kept: Mapping[str, Tensor],
    *,
    used: Used,
    round_to: int,
    fixed: FixedShapes,
    approximate: bool,
) -> tuple[Shrinking, Shrunk]:
    """Cut a model whose instruments are off.

    Args:
        model: the model.
        example_inputs: as in `call_arguments`.
        kept: parameter -> what its mask keeps.
        used: what forward makes of parameters besides masking them.
        round_to: row and column counts of weights that lose some stay multiples of it.
        fixed: what keeps its shape, and why.
        approximate: whether to remove constants that no bias takes over exactly.

    Raises:
        SessionError: the example does not run, or the small model's outputs differ.
    """
    args, kwargs = call_arguments(example_inputs)
    try:
        before = count(model, args, kwargs)
    except Exception as error:
        raise SessionError(
            f"shrink() cannot run the model with its example_inputs: {error}; give a tensor, a "
            "tuple of arguments or a mapping of keyword arguments that model(...) takes"
        ) from error
    found = shrink_module(
        model,
        args,
        kwargs,
        kept,
        used=used,
        round_to=round_to,
        fixed=fixed,
        approximate=approximate,
    )
    try:
        after = count(model, args, kwargs)
        whole = _change(total(before), total(after))
        shrunk = Shrunk(
            rows=tuple(_rows(found.cuts.values())),
            stays=found.stays,
            absorbed=found.absorbed,
            **whole,
            modules=tuple(
                Smaller(module=name, **_change(counts, after[name]))
                for name, counts in before.items()
                if counts != after[name]
            ),
            error=found.error,
            in_float64=found.in_float64,
            at_other_sizes=found.at_other_sizes,
            other_in_training=found.other_in_training,
        )
    except BaseException:
        found.undoing.undo()
        raise
    return found, shrunk


def _change(before: Counts, after: Counts) -> dict[str, tuple[int, int]]:
    first, second = attrs.asdict(before), attrs.asdict(after)
    return {key: (first[key], second[key]) for key in first}


def _rows(cuts: Iterable[Cut]) -> list[Row]:
    rows = []
    for cut in cuts:
        module, _, name = cut.name.rpartition(".")
        rows += [
            Row(module, name, dim, before, after)
            for dim, (before, after) in enumerate(zip(cut.before, cut.after, strict=True))
            if before != after
        ]
    return rows


def small_plan(plan: Plan, cuts: Mapping[str, Cut]) -> Plan:
    """Return a plan with the shapes of the small model.

    Args:
        plan: the plan before.
        cuts: parameter or buffer -> what stays of it, by every name of tied ones.

    Raises:
        SessionError: the blocks of a target do not divide its new shape.
    """
    targets = []
    for target in plan.targets:
        cut = cuts.get(target.name)
        if cut is None:
            targets.append(target)
            continue
        blocks = target.blocks
        if blocks is not None and blocks.index is not None:
            # What is left of a block stays one; those that are gone leave no gap.
            blocks = Blocks(index=renumber(cut(blocks.index))[0])
        elif blocks is not None:
            try:
                resolve_size(blocks.size, cut.after)
            except ValueError as error:
                raise SessionError(
                    f"shrink() leaves {target.name} with the shape {list(cut.after)}, which its "
                    f"blocks do not divide ({error}); use round_to, or another granularity",
                    **target.place,
                ) from error
        targets.append(attrs.evolve(target, shape=cut.after, blocks=blocks))
    return attrs.evolve(plan, targets=tuple(targets))


def with_aliases(model: nn.Module, cuts: Mapping[str, Cut]) -> dict[str, Cut]:
    """Return cuts by every name of a tied parameter.

    Args:
        model: the model.
        cuts: by one name of each.
    """
    tensors = [
        *model.named_parameters(remove_duplicate=False),
        *model.named_buffers(remove_duplicate=False),
    ]
    by_tensor = {id(tensor): cuts[name] for name, tensor in tensors if name in cuts}
    return {
        name: attrs.evolve(by_tensor[id(tensor)], name=name)
        for name, tensor in tensors
        if id(tensor) in by_tensor
    }
