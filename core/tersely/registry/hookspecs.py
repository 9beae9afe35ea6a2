"""The pluggy hooks a face may implement: those that collect descriptors and those that observe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from tersely.contracts.observed import ResolvedPlan, RunningSession
    from tersely.registry.descriptors import (
        DependencyTracerInfo,
        ExporterInfo,
        GranularityInfo,
        LossInfo,
        ModuleSetting,
        PrunerInfo,
        QuantizerInfo,
        ScheduleInfo,
    )

plugin_api = (1, 1)
"""Major and minor version of the plugin API. A face states the lowest that it needs as
``tersely_api``; whatever has the same major version and no lower minor one is enough for it."""

ENTRY_POINT_GROUP = "tersely"

hookspec = pluggy.HookspecMarker("tersely")
hookimpl = pluggy.HookimplMarker("tersely")


@hookspec
def tersely_pruners() -> Sequence[PrunerInfo]:  # type: ignore[empty-body]  # a hookspec has no body
    """Return the pruning algorithms this plugin provides."""


@hookspec
def tersely_quantizers() -> Sequence[QuantizerInfo]:  # type: ignore[empty-body]  # a hookspec has no body
    """Return the quantization algorithms this plugin provides."""


@hookspec
def tersely_granularities() -> Sequence[GranularityInfo]:  # type: ignore[empty-body]  # a hookspec has no body
    """Return the granularities this plugin provides."""


@hookspec
def tersely_distillation_losses() -> Sequence[LossInfo]:  # type: ignore[empty-body]  # a hookspec has no body
    """Return the distillation losses this plugin provides."""


@hookspec
def tersely_schedules() -> Sequence[ScheduleInfo]:  # type: ignore[empty-body]  # a hookspec has no body
    """Return the sparsity schedules this plugin provides."""


@hookspec
def tersely_exporters() -> Sequence[ExporterInfo]:  # type: ignore[empty-body]  # a hookspec has no body
    """Return the export formats this plugin provides."""


@hookspec
def tersely_dependency_tracers() -> Sequence[DependencyTracerInfo]:  # type: ignore[empty-body]  # a hookspec has no body
    """Return the tracers of channel dependencies this plugin provides."""


@hookspec
def tersely_module_settings() -> Sequence[ModuleSetting]:  # type: ignore[empty-body]  # a hookspec has no body
    """Return default targets for module types this plugin knows."""


@hookspec
def tersely_plan_resolved(plan: ResolvedPlan) -> None:
    """Observe a plan after it was resolved and before anything is attached.

    Args:
        plan: the frozen plan.
    """


@hookspec
def tersely_masks_updated(
    session: RunningSession, sparsity: Mapping[str, Mapping[str, float]]
) -> None:
    """Observe new masks after they came into force.

    Args:
        session: the session whose masks changed.
        sparsity: module -> target -> masked fraction of the target's elements.
    """


@hookspec
def tersely_finalized(session: RunningSession) -> None:
    """Observe a session right after its result was baked into plain modules.

    Args:
        session: the finished session.
    """
