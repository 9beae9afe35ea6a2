"""An installation shrunk: the model is cut, and the plan installed on the small one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
import torch

from tersely.contracts.kinds import Method
from tersely.engine.state.journal import Journal
from tersely.engine.state.saver import Saved
from tersely.instrument.modules.attaching import detach_instruments
from tersely.instrument.modules.suspending import snapshot, suspended
from tersely.json_value import Json
from tersely.pruning.mask_buffers import masked_share
from tersely.session.installing import Installation, install
from tersely.session.shrinking.small_model import (
    cut_model,
    kept_parameters,
    small_plan,
    used_parameters,
    with_aliases,
)
from tersely.shrinking.cutting.attentions import attend_by_heads
from tersely.shrinking.cutting.masked_weights import Used
from tersely.shrinking.cutting.optimizing import cut_optimizer, remember, replace_learned
from tersely.shrinking.cutting.recorded import record_of
from tersely.shrinking.cutting.refusing import (
    need_example,
    need_options,
    need_sparsity_reached,
    need_structured_masks,
)
from tersely.shrinking.report import Shrunk
from tersely.shrinking.shrink import Shrinking

States = Mapping[Method, Saved]
"""The saved state of each engine, by its method."""


@attrs.frozen(eq=False)
class ShrunkInstallation:
    """What a session continues with after its model became smaller.

    Attributes:
        installation: the plan on the small model; the same as before if nothing was removed.
        shrunk: what was removed.
        records: how a model of the original size is cut in the same way, none or one.
    """

    installation: Installation
    shrunk: Shrunk
    records: tuple[dict[str, Json], ...] = ()


def shrink_installed(
    installation: Installation,
    example_inputs: Any,
    *,
    optimizer: torch.optim.Optimizer | None,
    round_to: int,
    approximate: bool,
) -> ShrunkInstallation:
    """Remove what masks leave without effect, and put the plan on the small model.

    Args:
        installation: the plan on its model.
        example_inputs: what to run the model with, or None where the user gave nothing.
        optimizer: the user's, or None.
        round_to: row and column counts of weights that lose some stay multiples of it.
        approximate: whether to remove constants that no bias takes over exactly.

    Raises:
        SessionError: nothing can be removed for a reason that concerns all of the model, or the
            small model does not compute what the masked one does. Nothing has changed.
    """
    stages, masks = installation.plan.recipe.stages, list(installation.masks())
    masking = {bound.plan.stage for bound, one in masks if masked_share(bound, one)}
    need_sparsity_reached([one for one in installation.growing() if one in masking], stages)
    example_inputs = need_example(example_inputs)
    need_options(optimizer, round_to=round_to, approximate=approximate)
    kept = kept_parameters(masks)
    need_structured_masks(kept)
    states: States = {one.method: one.save() for one in installation.engines}
    fixed: dict[tuple[str, str], str] = {}
    for engine in installation.engines:
        fixed |= engine.fixed_shapes(states[engine.method])
    used = Used(used_parameters(masks), is_rounded=installation.engines.quantization.is_rounding)
    with suspended(installation.attachments, installation.model):
        found, shrunk = cut_model(
            installation.model,
            example_inputs,
            kept,
            used=used,
            round_to=round_to,
            fixed=fixed,
            approximate=approximate,
        )
    if not found.cuts:
        return ShrunkInstallation(installation, shrunk)
    counted = example_inputs if installation.context.count is not None else None
    small = _put_on_small_model(installation, found, states, optimizer, example_inputs=counted)
    return ShrunkInstallation(
        small, shrunk, (record_of(found.cuts, found.undoing, installation.model),)
    )


def _put_on_small_model(
    before: Installation,
    found: Shrinking,
    states: States,
    optimizer: torch.optim.Optimizer | None,
    *,
    example_inputs: Any,
) -> Installation:
    """Install everything on the cut model again; an error undoes all of it."""
    model = before.model
    instruments = snapshot(before.attachments)
    put_back = remember(optimizer)
    # Engines find what is learned in the modules, which will hold what is learned then.
    learned = {engine.method: engine.learned() for engine in before.engines}
    after: Installation | None = None
    try:
        cuts = with_aliases(model, found.cuts)
        plan = small_plan(before.plan, cuts)
        small = {one.method: one.cut(states[one.method], cuts) for one in before.engines}
        if optimizer is not None:
            cut_optimizer(optimizer, model, cuts)
        detach_instruments(before.attachments)
        for module in found.by_heads:
            attend_by_heads(module, found.undoing)
        teacher = before.context.teacher
        after = install(plan, model, teacher, example_inputs=example_inputs)
        _restore_small(before, after, small)
        if optimizer is not None:
            for engine in after.engines:
                replace_learned(optimizer, learned[engine.method], engine.learned(), cuts)
    except BaseException:
        found.undoing.undo()
        put_back()
        if after is not None:
            for engine in after.engines:
                engine.stop()
            detach_instruments(after.attachments)
        instruments.put_back()
        raise
    for engine in before.engines:
        engine.stop()
    return after


def _restore_small(before: Installation, after: Installation, small: States) -> None:
    after.context.steps = before.context.steps
    after.context.batches = before.context.batches
    after.context.has_kept_batches = before.context.has_kept_batches
    with Journal() as journal:
        for engine in after.engines:
            engine.restore(small[engine.method], after.context.steps, journal)
        after.hold()
    after.count()
