"""The kinds of thing a plugin provides: how each is called, collected and looked up."""

from __future__ import annotations

import attrs

from tersely.registry.descriptors import (
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
    hook="tersely_pruners",
    descriptor=PrunerInfo,
    family="tersely-pruning",
)
QUANTIZER = Kind(
    name="quantizer",
    catalog="quantizers",
    hook="tersely_quantizers",
    descriptor=QuantizerInfo,
    family="tersely-quantization",
)
GRANULARITY = Kind(
    name="granularity",
    catalog="granularities",
    hook="tersely_granularities",
    descriptor=GranularityInfo,
    family="tersely-granularity",
)
LOSS = Kind(
    name="loss",
    catalog="losses",
    hook="tersely_distillation_losses",
    descriptor=LossInfo,
    family="tersely-distillation",
)
SCHEDULE = Kind(
    name="schedule",
    catalog="schedules",
    hook="tersely_schedules",
    descriptor=ScheduleInfo,
    family="tersely-pruning",
)
EXPORTER = Kind(
    name="exporter",
    catalog="exporters",
    hook="tersely_exporters",
    descriptor=ExporterInfo,
    family="tersely-export",
)
TRACER = Kind(
    name="tracer",
    catalog="tracers",
    hook="tersely_dependency_tracers",
    descriptor=DependencyTracerInfo,
    family="tersely",
)

KINDS = (PRUNER, QUANTIZER, GRANULARITY, LOSS, SCHEDULE, EXPORTER, TRACER)
