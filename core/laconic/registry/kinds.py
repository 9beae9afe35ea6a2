"""The kinds of thing a plugin provides: how each is called, collected and looked up."""

from __future__ import annotations

import attrs

from laconic.registry.descriptors import (
    DependencyTracerInfo,
    Descriptor,
    ExporterInfo,
    GranularityInfo,
    LossInfo,
    PrunerInfo,
    QuantizerInfo,
    ScheduleInfo,
)


@attrs.frozen(kw_only=True)
class Kind:
    """One kind of thing a plugin provides.

    Attributes:
        name: the singular that messages and ``--kind`` use, as in ``pruner``.
        catalog: the registry's attribute, as in ``pruners``.
        hook: the hook that collects it.
        descriptor: what the hook returns.
        family: the official distribution that provides it, or None while there is none.
    """

    name: str
    catalog: str
    hook: str
    descriptor: type[Descriptor]
    family: str | None = None


PRUNER = Kind(
    name="pruner",
    catalog="pruners",
    hook="laconic_pruners",
    descriptor=PrunerInfo,
    family="laconic-pruning",
)
QUANTIZER = Kind(
    name="quantizer",
    catalog="quantizers",
    hook="laconic_quantizers",
    descriptor=QuantizerInfo,
    family="laconic-quantization",
)
GRANULARITY = Kind(
    name="granularity",
    catalog="granularities",
    hook="laconic_granularities",
    descriptor=GranularityInfo,
    family="laconic-granularity",
)
LOSS = Kind(
    name="loss",
    catalog="losses",
    hook="laconic_distillation_losses",
    descriptor=LossInfo,
    family="laconic-distillation",
)
SCHEDULE = Kind(
    name="schedule",
    catalog="schedules",
    hook="laconic_schedules",
    descriptor=ScheduleInfo,
    family="laconic-pruning",
)
EXPORTER = Kind(
    name="exporter",
    catalog="exporters",
    hook="laconic_exporters",
    descriptor=ExporterInfo,
)
TRACER = Kind(
    name="tracer",
    catalog="tracers",
    hook="laconic_dependency_tracers",
    descriptor=DependencyTracerInfo,
    family="laconic-shrink",
)

KINDS = (PRUNER, QUANTIZER, GRANULARITY, LOSS, SCHEDULE, EXPORTER, TRACER)
